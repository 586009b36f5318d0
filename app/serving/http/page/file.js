// The section for a file of texts: read it, ask about its rows, show and give back what came of it.

import { percent, readPrediction, shown } from "./answer.js";
import { bar } from "./cards.js";
import { firstChoice } from "./choices.js";
import { decode, encode, FileError } from "./csv.js";
import { guessTextColumn, labelCounts, labelledCsv, readTable } from "./labelled.js";
import { describe, predict, resolveVersion } from "./models.js";
import { complain, inWords } from "./notice.js";
import { answerRows } from "./rows.js";

const MAX_BYTES = 64 * 1024 * 1024; // the whole file is in memory, several times over
const SHOWN_ROWS = 100;

const element = (id) => document.getElementById(id);

let file = null; // { name, text, hasMark }
let table = null;
let running = null; // the AbortController of a run under way

/** Make the section work; `refresh` lists the models anew. */
export function startFiles(refresh) {
  element("file").addEventListener("change", ({ target }) => open([...target.files]));
  element("has-header").addEventListener("change", () => attempt(readAgain));
  element("column").addEventListener("change", showFirstText);
  element("stop").addEventListener("click", () => running?.abort());
  element("file-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    await run(refresh);
  });
  acceptDrops();
}

function acceptDrops() {
  const hasFiles = (event) => event.dataTransfer?.types.includes("Files") ?? false;
  const mark = (isDragging) => document.body.classList.toggle("dragging", isDragging);
  document.addEventListener("dragover", (event) => {
    if (hasFiles(event)) {
      event.preventDefault(); // else the browser leaves the page to show the file
      mark(true);
    }
  });
  document.addEventListener("dragleave", (event) => mark(event.relatedTarget !== null && hasFiles(event)));
  document.addEventListener("drop", (event) => {
    mark(false);
    if (hasFiles(event)) {
      event.preventDefault();
      element("file").value = ""; // it would name another file than the one that is open
      open([...event.dataTransfer.files]);
    }
  });
}

async function attempt(work) {
  complain(element("file-problem"));
  try {
    await work();
  } catch (error) {
    const words = inWords(error);
    if (words !== null) {
      complain(element("file-problem"), words);
    }
  }
}

async function open(files) {
  if (files.length === 0) {
    return;
  }
  running?.abort();
  [file, table] = [null, null];
  element("file-form").hidden = true;
  element("file-result").hidden = true;
  await attempt(async () => {
    file = await contentsOf(files);
    element("has-header").checked = true;
    readAgain();
  });
}

async function contentsOf(files) {
  const [{ name, size }] = files;
  if (files.length > 1) {
    throw new FileError("One file at a time, please.");
  }
  if (size > MAX_BYTES) {
    throw new FileError(`${name} is larger than 64 MB. The command “valence predict --file” takes files of any size.`);
  }
  let bytes;
  try {
    bytes = await files[0].arrayBuffer();
  } catch {
    throw new FileError(`${name} cannot be read. Is it a folder, or open elsewhere?`);
  }
  return { name, ...decode(bytes, name) };
}

function readAgain() {
  if (file === null) {
    return;
  }
  element("file-form").hidden = false; // also when the rows are uneven: the header may be what is wrong
  element("file-name").textContent = file.name;
  table = null;
  element("column").replaceChildren();
  element("first-text").textContent = "";
  table = readTable(file.text, element("has-header").checked);
  const names = table.columns.map((name, index) => new Option(name || `column ${index + 1}`, String(index)));
  element("column").replaceChildren(...names);
  element("column").selectedIndex = guessTextColumn(table);
  showFirstText();
}

function showFirstText() {
  const { length } = table.rows;
  const first = table.rows[0][element("column").selectedIndex];
  element("first-text").textContent = `${rowsInWords(length)}. The first text: ${first ? `“${first}”` : "(empty)"}`;
}

function rowsInWords(count) {
  return count === 1 ? "1 row" : `${count.toLocaleString("en")} rows`;
}

async function run(refresh) {
  if (firstChoice() === null) {
    await refresh();
  }
  const choice = firstChoice();
  if (table === null) {
    await attempt(readAgain); // says once more what is wrong
  }
  if (running !== null || table === null || choice === null) {
    return;
  }
  const started = { table, name: file.name, hasMark: file.hasMark, answers: [], served: null };
  const begin = performance.now();
  setRunning(new AbortController());
  prepareResult(started);
  const { signal } = running;
  await attempt(() => answerTable(started, choice, signal));
  setRunning(null);
  if (table === started.table) {
    finish(started, performance.now() - begin);
    await refresh();
  }
}

async function answerTable(started, choice, signal) {
  // One version for the whole file, also when a new one takes over meanwhile.
  const version = await resolveVersion(choice, signal);
  started.served = { name: choice.name, version };
  const { depth, soleOutput } = await describe(choice.name, version, signal);
  const texts = started.table.rows.map((fields) => fields[started.column]);
  const askBatch = async (batch) => (await predict(started.served, batch, { depth, signal })).predictions;
  await answerRows(texts, askBatch, {
    signal,
    onAnswers: (predictions) => addAnswers(started, predictions.map((prediction) => readPrediction(prediction, soleOutput))),
    onWait: (seconds) => {
      element("file-said").textContent = `The server is busy; asking again in ${seconds} s.`;
    },
  });
}

function setRunning(controller) {
  const hadFocus = [element("start"), element("stop")].includes(document.activeElement);
  running = controller;
  element("start").hidden = controller !== null;
  element("stop").hidden = controller === null;
  for (const id of ["column", "has-header"]) {
    element(id).disabled = controller !== null;
  }
  if (hadFocus) {
    element(controller === null ? "start" : "stop").focus(); // whoever pressed one by keyboard stays in place
  }
}

function prepareResult(started) {
  started.column = element("column").selectedIndex;
  element("file-result").hidden = false;
  for (const id of ["download", "shares-block", "table-frame"]) {
    element(id).hidden = true;
  }
  element("file-said").textContent = "";
  element("table-head").replaceChildren();
  element("table-body").replaceChildren();
  showProgress(started);
}

function showProgress({ table: { rows }, answers }) {
  element("progress").max = rows.length;
  element("progress").value = answers.length;
  const [done, all] = [answers.length, rows.length].map((count) => count.toLocaleString("en"));
  element("progress-text").textContent = `${done} of ${all}`;
}

function addAnswers(started, answers) {
  const { answers: before } = started;
  const shownNow = answers.slice(0, Math.max(SHOWN_ROWS - before.length, 0));
  if (before.length === 0) {
    element("table-head").replaceChildren(headRow(answers[0]));
  }
  const lines = shownNow.map((answer, index) => bodyRow(started, before.length + index, answer));
  element("table-body").append(...lines);
  element("table-frame").hidden = false;
  before.push(...answers);
  const all = before.length <= SHOWN_ROWS;
  element("table-caption").textContent = all
    ? "Rows with their answers"
    : `The first ${SHOWN_ROWS} of ${rowsInWords(started.table.rows.length)}; the download has all of them`;
  element("file-said").textContent = "";
  showProgress(started);
}

function headRow({ label, outputs }) {
  const names = label === null ? outputs.map(([name]) => name) : ["Label", "Confidence"];
  return line(["Row", "Text", ...names].map((name) => cell("th", name, { scope: "col" })));
}

function bodyRow({ table: { rows }, column }, index, { label, probability, outputs }) {
  const text = cell("td", "", { className: "text" });
  const clamped = document.createElement("div");
  clamped.textContent = rows[index][column];
  text.append(clamped);
  const values =
    label === null
      ? outputs.map(([, value]) => cell("td", shown(value), { className: "text" }))
      : [cell("td", label), cell("td", percent(probability), { className: "figure" })];
  return line([cell("th", String(index + 1), { scope: "row" }), text, ...values]);
}

function line(cells) {
  const row = document.createElement("tr");
  row.append(...cells);
  return row;
}

function cell(tag, text, properties = {}) {
  return Object.assign(document.createElement(tag), { textContent: text, ...properties });
}

function finish(started, milliseconds) {
  const { answers, served, table: asked } = started;
  const [done, all] = [answers.length, asked.rows.length];
  if (done === 0) {
    element("file-result").hidden = true;
    return;
  }
  const who = `${served.name}, version ${served.version}`;
  element("file-said").textContent =
    done === all
      ? `${rowsInWords(done)} answered by ${who} in ${(milliseconds / 1000).toFixed(1)} s.`
      : `Stopped after ${rowsInWords(done)} of ${all.toLocaleString("en")}, answered by ${who}. ` +
        "The other rows have no label in the download.";
  showShares(answers);
  offerDownload(started);
}

function showShares(answers) {
  const counts = labelCounts(answers);
  element("shares-block").hidden = counts.length === 0;
  const bars = counts.map(([label, count], index) => {
    const share = count / answers.length;
    return bar(label, share, { isFirst: index === 0, number: `${rowsInWords(count)}, ${percent(share)}` });
  });
  element("shares").replaceChildren(...bars);
}

function offerDownload({ table: asked, answers, name, hasMark }) {
  const link = element("download");
  if (link.href) {
    URL.revokeObjectURL(link.href); // the one before would stay in memory
  }
  link.href = URL.createObjectURL(encode(labelledCsv(asked, answers), hasMark));
  link.download = `${name.replace(/\.[^.]*$/, "")}-labelled.csv`;
  link.hidden = false;
}
