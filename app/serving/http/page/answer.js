// What a prediction says: a label with probabilities, or whatever else a model gives.

/**
 * Read one prediction of the row format; it is the bare value where a signature has a `soleOutput`, else an object.
 *
 * A classifier's has `label`, `probabilities` and `classes`:
 * `{ label, probability, classes: [{ name, probability }], outputs }`; its label is null for every other model.
 * `outputs` holds everything the model gave, `[[name, value], ...]`.
 */
export function readPrediction(prediction, soleOutput) {
  const outputs = soleOutput === null ? Object.entries(prediction) : [[soleOutput, prediction]];
  if (soleOutput !== null || !isClassification(prediction)) {
    return { label: null, probability: null, classes: [], outputs };
  }
  const { label, classes: names, probabilities, confidence } = prediction;
  const classes = names.map((name, index) => ({ name, probability: probabilities[index] }));
  return { label, probability: confidence ?? Math.max(...probabilities), classes, outputs };
}

function isClassification({ label, classes, probabilities, confidence = 0 }) {
  return (
    typeof label === "string" &&
    typeof confidence === "number" &&
    Array.isArray(classes) &&
    Array.isArray(probabilities) &&
    classes.length === probabilities.length &&
    classes.every((name) => typeof name === "string") &&
    probabilities.every((probability) => typeof probability === "number")
  );
}

/** A probability for people: no digit that says 100% or 0% of what is less than certain. */
export function percent(probability) {
  if (probability > 0.999 && probability < 1) {
    return ">99.9%";
  }
  if (probability > 0 && probability < 0.001) {
    return "<0.1%";
  }
  return `${(probability * 100).toFixed(1)}%`;
}

/** A time for people: three digits at most. */
export function duration(milliseconds) {
  if (milliseconds < 10) {
    return `${milliseconds.toFixed(1)} ms`;
  }
  return milliseconds < 1000 ? `${Math.round(milliseconds)} ms` : `${(milliseconds / 1000).toFixed(1)} s`;
}

/** An output for people: a string as it is, everything else as JSON. */
export function shown(value) {
  return typeof value === "string" ? value : JSON.stringify(value, null, 1);
}

/** Two answers in one sentence. */
export function compareAnswers(first, second) {
  if (first.label === null || second.label === null) {
    const isSame = JSON.stringify(first.outputs) === JSON.stringify(second.outputs);
    return isSame ? "Both give the same outputs." : "Their outputs differ.";
  }
  if (first.label !== second.label) {
    return `They differ: ${first.label} against ${second.label}.`;
  }
  const gap = widestGap(first.classes, second.classes);
  const rest = gap === null ? "" : `; no probability differs by more than ${(gap * 100).toFixed(1)} points`;
  return `Both say ${first.label}${rest}.`;
}

/** The largest difference between probabilities of the same class; null where the classes are others. */
function widestGap(first, second) {
  const other = new Map(second.map(({ name, probability }) => [name, probability]));
  if (other.size !== first.length || !first.every(({ name }) => other.has(name))) {
    return null;
  }
  return Math.max(...first.map(({ name, probability }) => Math.abs(probability - other.get(name))));
}
