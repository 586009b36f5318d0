// Which models there are, which version answers, what it takes, and asking it.

import { request, ServerError } from "./api.js";

const DEFAULT_SIGNATURE = "serving_default";
const STATISTICS = "text_statistics";
const STATISTICS_OUTPUTS = ["num_tokens", "unknown_share", "truncated"];

/** The models that are served: `[{ name, versions }]`, versions as strings, newest first. */
export async function listModels() {
  return (await request("page/models")).document.models;
}

/**
 * The version that a choice `{ name, version }` stands for; a version of null is the newest that is available.
 *
 * An answer does not say which version gave it. So the page finds out first, and asks that very version.
 */
export async function resolveVersion({ name, version }, signal) {
  if (version !== null) {
    return version;
  }
  const { document } = await request(pathOf(name), { signal });
  const available = document.model_version_status.find(({ state }) => state === "AVAILABLE");
  if (available === undefined) {
    throw new ServerError(`No version of ${name} is available.`, 404);
  }
  return available.version;
}

const described = new Map();

/**
 * What a version takes and gives: `{ depth, soleOutput, hasStatistics }`.
 *
 * `depth` is how many lists there are around a text of one row; `soleOutput` is the name of the only output, which
 * an answer leaves out, and null where there are several.
 *
 * Throws `ServerError` where `serving_default` does not take one string.
 */
export async function describe(name, version, signal) {
  const path = `${pathOf(name, version)}/metadata`;
  if (!described.has(path)) {
    const { document } = await request(path, { signal });
    described.set(path, read(name, document.metadata.signature_def.signature_def));
  }
  return described.get(path);
}

function read(name, signatures) {
  const signature = signatures[DEFAULT_SIGNATURE];
  if (signature === undefined) {
    const others = Object.keys(signatures).join(", ");
    throw new ServerError(`${name} has no ${DEFAULT_SIGNATURE}, which is what this page asks. It has: ${others}.`, 400);
  }
  const inputs = Object.entries(signature.inputs);
  if (inputs.length !== 1 || inputs[0][1].dtype !== "DT_STRING") {
    const taken = inputs.map(([input, { dtype }]) => `${input} (${wordFor(dtype)})`).join(" and ");
    throw new ServerError(`${name} takes ${taken}. This page can only ask models that take one string.`, 400);
  }
  const [, { tensor_shape: shape }] = inputs[0];
  const depth = shape.unknown_rank ? 0 : Math.max(shape.dim.length - 1, 0);
  const outputs = Object.keys(signature.outputs);
  const soleOutput = outputs.length === 1 ? outputs[0] : null;
  return { depth, soleOutput, hasStatistics: givesStatistics(signatures[STATISTICS]) };
}

function wordFor(dtype) {
  return dtype.replace(/^DT_/, "").toLowerCase();
}

function givesStatistics(signature) {
  if (signature === undefined) {
    return false;
  }
  const inputs = Object.values(signature.inputs);
  const takesText = inputs.length === 1 && inputs[0].dtype === "DT_STRING";
  return takesText && STATISTICS_OUTPUTS.every((output) => output in signature.outputs);
}

/** Ask one version about texts: `{ predictions, milliseconds }`, one prediction for each text. */
export async function predict({ name, version }, texts, { depth = 0, signature = DEFAULT_SIGNATURE, signal } = {}) {
  const body = { signature_name: signature, instances: texts.map((text) => nested(text, depth)) };
  const { document, milliseconds } = await request(`${pathOf(name, version)}:predict`, { body, signal });
  const { predictions } = document;
  if (!Array.isArray(predictions) || predictions.length !== texts.length) {
    throw new ServerError(`${name} did not give one answer for each of ${texts.length} texts.`, 200);
  }
  return { predictions, milliseconds };
}

/** How the model reads a text, `{ num_tokens, unknown_share, truncated }`; for versions that `hasStatistics`. */
export async function textStatistics(served, text, signal) {
  const { predictions } = await predict(served, [text], { signature: STATISTICS, signal });
  return predictions[0];
}

function nested(text, depth) {
  // Half of a surrogate pair, which a paste can bring, has no UTF-8 form and would be refused.
  let value = text.toWellFormed?.() ?? text;
  for (let level = 0; level < depth; level += 1) {
    value = [value];
  }
  return value;
}

function pathOf(name, version) {
  const model = `v1/models/${encodeURIComponent(name)}`;
  return version === undefined ? model : `${model}/versions/${encodeURIComponent(version)}`;
}
