// CSV in and out, quoted as RFC 4180 says. Python's csv module is the oracle in tests/test_page.py.

/** A file that cannot be read, in words for a person. */
export class FileError extends Error {
  constructor(message) {
    super(message);
    this.name = "FileError";
  }
}

const BYTE_ORDER_MARK = "\ufeff";

/** The bytes of a file as `{ text, hasMark }`: UTF-8 with or without a byte order mark, or UTF-16 with one. */
export function decode(bytes, name) {
  const start = new Uint8Array(bytes, 0, Math.min(bytes.byteLength, 3));
  const encoding = { "255,254": "utf-16le", "254,255": "utf-16be" }[`${start[0]},${start[1]}`] ?? "utf-8";
  try {
    const text = new TextDecoder(encoding, { fatal: true, ignoreBOM: true }).decode(bytes);
    const hasMark = text.startsWith(BYTE_ORDER_MARK);
    return { text: hasMark ? text.slice(1) : text, hasMark };
  } catch {
    throw new FileError(`${name} is not UTF-8 text. Spreadsheets can save as “CSV UTF-8”.`);
  }
}

/** The delimiter that a text's first record has most of: a comma where there is none. */
export function findDelimiter(text) {
  const counts = new Map([[",", 0], [";", 0], ["\t", 0]]);
  let isQuoted = false;
  for (const sign of text) {
    if (sign === '"') {
      isQuoted = !isQuoted;
    } else if (!isQuoted && (sign === "\n" || sign === "\r")) {
      break;
    } else if (!isQuoted && counts.has(sign)) {
      counts.set(sign, counts.get(sign) + 1);
    }
  }
  return [...counts].reduce((most, next) => (next[1] > most[1] ? next : most))[0];
}

/**
 * The records of a text, each `{ line, fields }` with the line it begins in; empty lines are skipped.
 *
 * A record ends at LF, CRLF or CR outside of quotes. Throws `FileError` for quotes that do not close or are
 * followed by more text.
 */
export function parseCsv(text, delimiter) {
  const records = [];
  const reader = { text, delimiter, at: 0, line: 1 };
  while (reader.at < text.length) {
    const line = reader.line;
    const { fields, isBlank } = readRecord(reader);
    if (!isBlank) {
      records.push({ line, fields });
    }
  }
  return records;
}

function readRecord(reader) {
  const fields = [];
  const begin = reader.at;
  for (;;) {
    fields.push(reader.text[reader.at] === '"' ? readQuoted(reader) : readPlain(reader));
    if (reader.text[reader.at] !== reader.delimiter) {
      break;
    }
    reader.at += 1;
  }
  const isBlank = reader.at === begin;
  skipLineEnd(reader);
  return { fields, isBlank };
}

function readPlain(reader) {
  const { text, delimiter } = reader;
  const begin = reader.at;
  while (reader.at < text.length && !isEnd(text[reader.at], delimiter)) {
    reader.at += 1;
  }
  return text.slice(begin, reader.at);
}

function readQuoted(reader) {
  const { text } = reader;
  const opened = reader.line;
  const parts = [];
  let begin = reader.at + 1;
  for (;;) {
    const quote = text.indexOf('"', begin);
    if (quote === -1) {
      throw new FileError(`Line ${opened}: a quote opens here and does not close.`);
    }
    parts.push(text.slice(begin, quote));
    if (text[quote + 1] !== '"') {
      reader.at = quote + 1;
      break;
    }
    parts.push('"');
    begin = quote + 2;
  }
  const field = parts.join("");
  reader.line += countLineEnds(field);
  if (reader.at < text.length && !isEnd(text[reader.at], reader.delimiter)) {
    throw new FileError(`Line ${reader.line}: text follows a closing quote; a quote within a field is written twice.`);
  }
  return field;
}

function isEnd(sign, delimiter) {
  return sign === delimiter || sign === "\n" || sign === "\r";
}

function skipLineEnd(reader) {
  if (reader.at >= reader.text.length) {
    return;
  }
  reader.at += reader.text.startsWith("\r\n", reader.at) ? 2 : 1;
  reader.line += 1;
}

function countLineEnds(text) {
  return text.match(/\r\n|\r|\n/g)?.length ?? 0;
}

/** Records (arrays of strings) as CSV: fields are quoted where they must be, records end with CRLF. */
export function formatCsv(records, delimiter) {
  const write = (field) => (mustBeQuoted(field, delimiter) ? `"${field.replaceAll('"', '""')}"` : field);
  // A lone empty field would be an empty line, which readers skip.
  const row = (fields) => (fields.length === 1 && fields[0] === "" ? '""' : fields.map(write).join(delimiter));
  return records.map((fields) => `${row(fields)}\r\n`).join("");
}

function mustBeQuoted(field, delimiter) {
  return field.includes(delimiter) || /["\r\n]/.test(field) || field.startsWith(BYTE_ORDER_MARK);
}

/** Bytes of a CSV file, with a byte order mark where the file that it comes from had one. */
export function encode(text, hasMark) {
  return new Blob([hasMark ? BYTE_ORDER_MARK : "", text], { type: "text/csv;charset=utf-8" });
}
