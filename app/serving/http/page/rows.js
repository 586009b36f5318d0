// Many texts, asked a few rows at a time, with patience for a server that is busy.

import { ServerError } from "./api.js";

export const BATCH_ROWS = 32;
const ATTEMPTS = 6;
const FIRST_WAIT_SECONDS = 0.5;
const LONGEST_WAIT_SECONDS = 30;

// A server's own limit of rows: TensorFlow's batching, and the embedded server's.
const TOO_MANY_ROWS = /maximum input batch size|rows: at most \d+ are allowed/;

/**
 * Ask about all texts, in order, one batch after another: a server has others to answer too.
 *
 * `askBatch(texts)` gives one answer for each; `onAnswers(answers)` gets them as they come, `onWait(seconds)` is told
 * of every pause. Throws what `askBatch` throws, with the rows named, and the signal's AbortError.
 */
export async function answerRows(texts, askBatch, { onAnswers, onWait, signal }) {
  let size = BATCH_ROWS;
  for (let done = 0; done < texts.length; ) {
    const batch = texts.slice(done, done + size);
    try {
      onAnswers(await patiently(() => askBatch(batch), onWait, signal));
      done += batch.length;
    } catch (error) {
      if (!isTooMuch(error) || batch.length === 1) {
        throw placed(error, done + 1, done + batch.length);
      }
      size = Math.ceil(batch.length / 2);
    }
  }
}

function isTooMuch(error) {
  return error instanceof ServerError && (error.status === 413 || TOO_MANY_ROWS.test(error.reason));
}

function placed(error, first, last) {
  if (error instanceof ServerError) {
    error.message = `${first === last ? `Row ${first}` : `Rows ${first} to ${last}`}: ${error.message}`;
  }
  return error;
}

async function patiently(attempt, onWait, signal) {
  for (let tried = 1; ; tried += 1) {
    signal.throwIfAborted();
    try {
      return await attempt();
    } catch (error) {
      const isBusy = error instanceof ServerError && (error.status === 429 || error.status === 503);
      if (!isBusy || tried === ATTEMPTS) {
        throw error;
      }
      const seconds = Math.min(error.retryAfter ?? FIRST_WAIT_SECONDS * 2 ** (tried - 1), LONGEST_WAIT_SECONDS);
      onWait(seconds);
      await pause(seconds, signal);
    }
  }
}

function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    const stopped = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal.removeEventListener("abort", stopped);
      resolve();
    }, seconds * 1000);
    signal.addEventListener("abort", stopped, { once: true });
  });
}
