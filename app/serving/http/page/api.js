// Requests to the server that gave this page, and its failures in words.

/** A request that got no useful answer: `message` is for a person, `status` is HTTP's (0: no answer at all). */
export class ServerError extends Error {
  constructor(message, status = 0, { reason = message, retryAfter = null } = {}) {
    super(message);
    this.name = "ServerError";
    this.status = status;
    this.reason = reason; // the server's own words
    this.retryAfter = retryAfter; // seconds
  }
}

// In memory alone: neither storage nor a cookie outlives the page.
let token = null;
let askForToken = async () => null;

/** Set who is asked for a token: a function of a message, giving the token, or null where there is none. */
export function whenTokenIsWanted(ask) {
  askForToken = ask;
}

/**
 * Ask the server. A path is relative to the page, so that a front may serve both under a prefix.
 *
 * Gives `{ document, milliseconds }`: the answer's JSON, and the time from sending to having read it.
 * Throws `ServerError`, or the signal's AbortError.
 */
export async function request(path, { body, signal } = {}) {
  for (;;) {
    const used = token;
    const answer = await exchange(path, body, signal);
    if (answer.status !== 401) {
      return { document: read(answer), milliseconds: answer.milliseconds };
    }
    // Another request may have been given a token while this one was under way.
    if (used === token) {
      await renewToken(answer);
    }
  }
}

async function renewToken(answer) {
  const message = token === null ? "This server asks for a token." : "The server did not accept that token.";
  const given = await askForToken(message);
  if (given === null) {
    throw new ServerError("The server asks for a token, and none was given.", 401, { reason: reasonOf(answer.text) });
  }
  token = given;
}

async function exchange(path, body, signal) {
  const headers = new Headers(token === null ? {} : { Authorization: `Bearer ${token}` });
  const options = { headers, signal, cache: "no-store", redirect: "error" };
  if (body !== undefined) {
    headers.set("Content-Type", "application/json");
    Object.assign(options, { method: "POST", body: JSON.stringify(body) });
  }
  const started = performance.now();
  try {
    const response = await fetch(path, options);
    const text = await response.text();
    const milliseconds = performance.now() - started;
    return { status: response.status, retryAfter: response.headers.get("Retry-After"), text, milliseconds };
  } catch (error) {
    if (error.name === "AbortError") {
      throw error;
    }
    throw new ServerError(`The server at ${location.host} does not answer. Is it still running?`);
  }
}

function read({ status, text, retryAfter }) {
  if (status >= 200 && status < 300) {
    return parse(text, status);
  }
  const reason = reasonOf(text);
  const seconds = Number.parseFloat(retryAfter);
  throw new ServerError(`${meaning(status)} (${status})${reason ? `: ${reason}` : "."}`, status, {
    reason,
    retryAfter: Number.isFinite(seconds) ? seconds : null,
  });
}

const MEANINGS = {
  400: "The server refused this request",
  403: "The server does not allow this",
  404: "The server does not have that",
  413: "That is more than the server takes in one request",
  429: "The server has more to do than it can take; try again in a moment",
  503: "The server cannot answer just now; try again in a moment",
  504: "The model took longer than the server allows",
};

function meaning(status) {
  return MEANINGS[status] ?? (status >= 500 ? "The server failed" : "The server refused this request");
}

function reasonOf(text) {
  try {
    const { error } = JSON.parse(text);
    return typeof error === "string" ? error : text.slice(0, 300);
  } catch {
    return text.slice(0, 300); // a front's own page, say
  }
}

const STRING_OR_BARE_WORD = /"(?:[^"\\]|\\.)*"|-?\b(?:NaN|Infinity|Inf)\b/g;

/** JSON with TensorFlow Serving's bare NaN and Infinity, which become strings of that name. */
export function parse(text, status = 200) {
  try {
    return JSON.parse(text);
  } catch {
    const mended = text.replace(STRING_OR_BARE_WORD, (found) => (found.startsWith('"') ? found : `"${found}"`));
    try {
      return JSON.parse(mended);
    } catch {
      throw new ServerError("The server's answer is no JSON.", status, { reason: text.slice(0, 300) });
    }
  }
}
