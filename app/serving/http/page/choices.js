// The selects of model and version, kept in step with what the server has.

const selects = [document.getElementById("first-model"), document.getElementById("second-model")];
const LATEST = "";

let models = [];

/** Show these models (`[{ name, versions }]`) for choice; what was chosen stays chosen, even where it is gone. */
export function offer(listed) {
  if (JSON.stringify(listed) === JSON.stringify(models)) {
    return; // a list made anew would close one that is open
  }
  const isFirst = models.length === 0;
  models = listed;
  for (const select of selects) {
    const chosen = chosenIn(select);
    select.replaceChildren(...options(models));
    keep(select, chosen);
  }
  if (isFirst && models.length > 0) {
    suggestSecond();
  }
}

/** What is chosen first, `{ name, version }` with a version of null for the latest; or null where there is nothing. */
export function firstChoice() {
  return chosenIn(selects[0]);
}

/** What the first is compared with. */
export function secondChoice() {
  return chosenIn(selects[1]);
}

function chosenIn(select) {
  const option = select.selectedOptions[0];
  return option === undefined ? null : { name: option.dataset.name, version: option.dataset.version || null };
}

function options(listed) {
  return listed.flatMap(({ name, versions }) => [
    option(name, LATEST, versions.length ? `${name}, latest (${versions[0]})` : `${name}, no version available`),
    ...versions.map((version) => option(name, version, `${name}, version ${version}`)),
  ]);
}

function option(name, version, label) {
  const made = new Option(label);
  made.dataset.name = name;
  made.dataset.version = version;
  return made;
}

function keep(select, chosen) {
  if (chosen === null) {
    return;
  }
  const version = chosen.version ?? LATEST;
  let found = [...select.options].find(({ dataset }) => dataset.name === chosen.name && dataset.version === version);
  if (found === undefined) {
    // Choosing another one silently would make the next answer that of a model nobody chose.
    found = option(chosen.name, version, `${chosen.name}, ${version ? `version ${version}` : "latest"} (gone)`);
    select.append(found);
  }
  found.selected = true;
}

/** Compare with the version before, else with another model, as far as there is one. */
function suggestSecond() {
  const [{ name, versions }] = models;
  const older = { name, version: versions[1] ?? null };
  const other = models.length > 1 ? { name: models[1].name, version: null } : older;
  keep(selects[1], versions.length > 1 ? older : other);
}
