// Answers as elements. Whatever came from a user or a model goes in as text, never as markup.

import { duration, percent, shown } from "./answer.js";

// More classes than this go by probability, and the rest of them behind a fold.
const FEW_CLASSES = 6;
const SHOWN_FIRST = 5;

/** The card of one answer: who gave it, its label, its bars or raw outputs, and how long it took. */
export function cardOf({ served, answer, milliseconds, statistics }) {
  const card = document.getElementById("card-template").content.cloneNode(true).firstElementChild;
  const part = (selector) => card.querySelector(selector);
  part(".source").textContent = `${served.name}, version ${served.version}`;
  part(".label").textContent = answer.label ?? "";
  part(".facts").textContent = [`Answered in ${duration(milliseconds)}`, ...wordsOn(statistics)].join(" · ");
  if (answer.label === null) {
    part(".raw").append(...answer.outputs.flatMap(describedOutput));
  } else {
    fillBars(card, answer);
  }
  return card;
}

function fillBars(card, { classes, label }) {
  const bars = (some) => some.map(({ name, probability }) => bar(name, probability, { isFirst: name === label }));
  if (classes.length <= FEW_CLASSES) {
    card.querySelector(".bars").append(...bars(classes)); // in their own order: two cards are then alike
    return;
  }
  const sorted = [...classes].sort((one, other) => other.probability - one.probability);
  card.querySelector(".bars").append(...bars(sorted.slice(0, SHOWN_FIRST)));
  const others = card.querySelector(".others");
  others.hidden = false;
  others.querySelector("summary").textContent = `${sorted.length - SHOWN_FIRST} more classes`;
  others.querySelector(".bars").append(...bars(sorted.slice(SHOWN_FIRST)));
}

let barsMade = 0;

/** A list item with a name, a share of one and its bar; `number` is the share in words. */
export function bar(name, share, { isFirst = false, number = percent(share) } = {}) {
  const item = document.getElementById("bar-template").content.cloneNode(true).firstElementChild;
  const [label, figure, track] = item.children;
  barsMade += 1;
  label.id = `bar-${barsMade}`;
  label.textContent = name;
  figure.textContent = number;
  track.setAttribute("aria-labelledby", label.id);
  track.setAttribute("aria-valuenow", String(share));
  track.setAttribute("aria-valuetext", number);
  // Set through the object model, which the page's Content-Security-Policy allows where a style attribute is not.
  track.firstElementChild.style.setProperty("--share", String(Math.min(Math.max(share, 0), 1)));
  item.classList.toggle("first", isFirst);
  return item;
}

function describedOutput([name, value]) {
  const term = document.createElement("dt");
  const description = document.createElement("dd");
  term.textContent = name;
  description.textContent = shown(value);
  return [term, description];
}

function wordsOn(statistics) {
  if (statistics === null) {
    return [];
  }
  const { num_tokens: tokens, unknown_share: unknown, truncated } = statistics;
  const words = [tokens === 1 ? "1 token" : `${tokens} tokens`];
  if (unknown > 0) {
    words.push(`${percent(unknown)} of them unknown to the model`);
  }
  if (truncated) {
    words.push("longer than the model reads: a part was left out");
  }
  return words;
}
