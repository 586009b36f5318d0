// Tables that can be sorted, narrowed down and saved as CSV. Without it the page is whole, only still.
"use strict";

const FORMULA = /^[=+\-@\t\r\n＝＋－＠]/;
const NUMBER = /^[+-]?\d+([.,]\d+)?$/;

/** What a cell says in full, whether or not its text is folded away. */
function textOf(cell) {
  return (cell.querySelector(".whole") ?? cell).textContent.trim();
}

/** Put a table's rows in order by a column; `direction` is "ascending" or "descending". */
function sortBy(table, column, direction) {
  const isNumber = table.tHead.rows[0].cells[column].classList.contains("number");
  const sign = direction === "ascending" ? 1 : -1;
  const keyed = [...table.tBodies[0].rows].map((row) => {
    const cell = row.cells[column];
    return { row, key: isNumber ? parseFloat(cell.dataset.key ?? cell.textContent) : textOf(cell) };
  });
  // What is undefined stays last, whichever way the rest runs.
  keyed.sort((a, b) => {
    if (!isNumber) {
      return sign * a.key.localeCompare(b.key);
    }
    return Number.isNaN(a.key) || Number.isNaN(b.key) ? Number.isNaN(a.key) - Number.isNaN(b.key) : sign * (a.key - b.key);
  });
  table.tBodies[0].append(...keyed.map(({ row }) => row));
  for (const heading of table.tHead.rows[0].cells) {
    heading.removeAttribute("aria-sort");
  }
  table.tHead.rows[0].cells[column].setAttribute("aria-sort", direction);
}

/** Make every heading a button; the first press of a figure's heading puts the largest first. */
function makeSortable(table) {
  [...table.tHead.rows[0].cells].forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const first = heading.classList.contains("number") ? "descending" : "ascending";
      const second = first === "ascending" ? "descending" : "ascending";
      sortBy(table, column, heading.getAttribute("aria-sort") === first ? second : first);
    });
  });
}

/** Show the rows that fit every choice, and say how many there are. */
function narrow(table, selects, status) {
  let shown = 0;
  for (const row of table.tBodies[0].rows) {
    row.hidden = selects.some(({ select, column }) => select.value !== "" && textOf(row.cells[column]) !== select.value);
    shown += row.hidden ? 0 : 1;
  }
  status.textContent = `${shown.toLocaleString("en")} of ${table.tBodies[0].rows.length.toLocaleString("en")} rows`;
}

/** Make a select for each column to choose by. */
function addChoices(table, tools) {
  const selects = [];
  const status = document.createElement("span");
  status.setAttribute("role", "status");
  status.className = "soft";
  [...table.tHead.rows[0].cells].forEach((heading, column) => {
    if (!("choose" in heading.dataset)) {
      return;
    }
    const select = document.createElement("select");
    const values = [...new Set([...table.tBodies[0].rows].map((row) => textOf(row.cells[column])))].sort();
    select.append(new Option("any", ""), ...values.map((value) => new Option(value, value)));
    select.id = `${table.id}-by-${column}`;
    const label = document.createElement("label");
    label.htmlFor = select.id;
    label.append(heading.textContent.trim());
    tools.append(label, select);
    selects.push({ select, column });
    select.addEventListener("change", () => narrow(table, selects, status));
  });
  if (selects.length > 0) {
    narrow(table, selects, status);
    tools.append(status);
  }
}

/** A field as RFC 4180 quotes it; what a spreadsheet would run as a formula gets an apostrophe before it. */
function csvField(text) {
  const inert = FORMULA.test(text) && !NUMBER.test(text) ? `'${text}` : text;
  return /[",\r\n]/.test(inert) ? `"${inert.replaceAll('"', '""')}"` : inert;
}

/** The rows that are shown as CSV, with an empty column for the label that a person gives. */
function csvOf(table) {
  const headings = [...table.tHead.rows[0].cells].map((cell) => cell.textContent.trim());
  const rows = [...table.tBodies[0].rows].filter((row) => !row.hidden).map((row) => [...row.cells].map(textOf));
  const lines = [[...headings, "new_label"], ...rows.map((row) => [...row, ""])];
  return lines.map((line) => line.map(csvField).join(",")).join("\r\n") + "\r\n";
}

/** Put the CSV below the table as text, for where a page may not save files, as in MLflow's viewer. */
function showCsv(csv, name, tools) {
  tools.parentElement.querySelector(".copy")?.remove();
  const box = document.createElement("div");
  box.className = "copy";
  const area = document.createElement("textarea");
  area.readOnly = true;
  area.value = csv;
  const label = document.createElement("label");
  label.append(`${name}, to copy: this viewer may not save files. It is also beside this report.`, area);
  box.append(label);
  tools.after(box);
  area.focus();
  area.select();
}

/** Save what is shown; inside a frame, which may be forbidden to save and does not say so, also show it. */
function save(table, tools) {
  const csv = csvOf(table);
  const name = table.dataset.export;
  try {
    const url = URL.createObjectURL(new Blob(["\ufeff", csv], { type: "text/csv;charset=utf-8" }));
    if (window.parent !== window) {
      showCsv(csv, name, tools);
      return;
    }
    const link = document.createElement("a");
    link.href = url;
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
  } catch {
    showCsv(csv, name, tools);
  }
}

for (const table of document.querySelectorAll("table.sortable")) {
  const tools = document.createElement("div");
  tools.className = "tools";
  addChoices(table, tools);
  if (table.dataset.export) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = "Save these rows as CSV";
    button.addEventListener("click", () => save(table, tools));
    tools.append(button);
  }
  if (tools.childElementCount > 0) {
    table.closest(".frame").before(tools);
  }
  makeSortable(table);
}

window.addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("details")) {
    details.open = true;
  }
});

// In a frame without an address of its own a link within the page would lead out of it.
for (const link of document.querySelectorAll("nav a")) {
  link.addEventListener("click", (event) => {
    if (window.parent !== window) {
      event.preventDefault();
      document.getElementById(link.hash.slice(1)).scrollIntoView();
    }
  });
}
