// A table of texts and what is added to it: the same columns as `valence predict --file` writes.

import { FileError, formatCsv, findDelimiter, parseCsv } from "./csv.js";

const USUAL_NAMES = ["text", "review", "sentence", "content", "comment", "message", "body", "phrase"];
const SAMPLE_ROWS = 50;

/** The table in a text: `{ columns, rows, delimiter }`. Throws `FileError` naming the line of what is wrong. */
export function readTable(text, hasHeader) {
  const delimiter = findDelimiter(text);
  const records = parseCsv(text, delimiter);
  if (records.length === 0) {
    throw new FileError("The file is empty.");
  }
  const [{ fields: first }] = records;
  const columns = hasHeader ? first : first.map((_, index) => `column ${index + 1}`);
  const body = hasHeader ? records.slice(1) : records;
  if (body.length === 0) {
    throw new FileError("The file has one row, which holds the column names, and no texts.");
  }
  const uneven = body.find(({ fields }) => fields.length !== columns.length);
  if (uneven !== undefined) {
    throw new FileError(
      `Line ${uneven.line}: ${count(uneven.fields.length, "field")} where the first row has ${columns.length}. ` +
        "A field that holds the delimiter or a line break must be in double quotes.",
    );
  }
  return { columns, rows: body.map(({ fields }) => fields), delimiter };
}

function count(number, noun) {
  return number === 1 ? `1 ${noun}` : `${number} ${noun}s`;
}

/** The index of the column that holds the texts: by its name, else the one with the longest values. */
export function guessTextColumn({ columns, rows }) {
  const names = columns.map((name) => name.trim().toLowerCase());
  const usual = USUAL_NAMES.find((name) => names.includes(name));
  if (usual !== undefined) {
    return names.indexOf(usual);
  }
  const lengths = columns.map((_, column) =>
    rows.slice(0, SAMPLE_ROWS).reduce((sum, fields) => sum + fields[column].length, 0),
  );
  return lengths.indexOf(Math.max(...lengths));
}

/**
 * The table as CSV with the answers beside each row; `answers` are those of the first rows, the others stay blank.
 *
 * A classifier adds `label`, `confidence` and `probability_<class>`, any other model its outputs; a name that
 * the table has already becomes `predicted_<name>`.
 */
export function labelledCsv({ columns, rows, delimiter }, answers) {
  const added = addedColumns(answers);
  const header = [...columns, ...added.map(({ name }) => free(name, columns))];
  const body = rows.map((fields, row) => [
    ...fields,
    ...added.map(({ of }) => (row < answers.length ? of(answers[row]) : "")),
  ]);
  return formatCsv([header, ...body], delimiter);
}

function free(name, taken) {
  return taken.includes(name) ? free(`predicted_${name}`, taken) : name;
}

/** Columns as `{ name, of }`, where `of` takes an answer and gives the field. */
function addedColumns(answers) {
  if (answers.some(({ label }) => label === null)) {
    const names = [...new Set(answers.flatMap(({ outputs }) => outputs.map(([name]) => name)))];
    return names.map((name) => ({ name, of: ({ outputs }) => field(outputs.find(([key]) => key === name)?.[1]) }));
  }
  const classes = answers[0]?.classes ?? [];
  return [
    { name: "label", of: ({ label }) => label },
    { name: "confidence", of: ({ probability }) => String(probability) },
    ...classes.map(({ name }, index) => ({
      name: `probability_${name}`,
      of: (answer) => String(answer.classes[index].probability),
    })),
  ];
}

function field(value) {
  return value === undefined ? "" : typeof value === "string" ? value : JSON.stringify(value);
}

/** How often each label was given, `[[label, count], ...]`, the most frequent first; empty for raw outputs. */
export function labelCounts(answers) {
  const counts = new Map();
  for (const { label } of answers) {
    if (label !== null) {
      counts.set(label, (counts.get(label) ?? 0) + 1);
    }
  }
  return [...counts].sort((one, other) => other[1] - one[1]);
}

