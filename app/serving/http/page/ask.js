// The section for one text: ask, show, compare.

import { compareAnswers, duration, percent, readPrediction } from "./answer.js";
import { cardOf } from "./cards.js";
import { firstChoice, secondChoice } from "./choices.js";
import { describe, predict, resolveVersion, textStatistics } from "./models.js";
import { complain, inWords } from "./notice.js";

const element = (id) => document.getElementById(id);
const form = element("ask-form");
const text = element("text");
const compare = element("compare");

let asking = new AbortController();

/** Make the section work; `refresh` lists the models anew. */
export function startAsking(refresh) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    await askNow(refresh);
  });
  text.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !event.isComposing) {
      event.preventDefault();
      form.requestSubmit();
    }
  });
  compare.addEventListener("change", () => {
    element("second-choice").hidden = !compare.checked;
  });
  // A browser may bring a form back as it was left.
  element("second-choice").hidden = !compare.checked;
}

async function askNow(refresh) {
  asking.abort(); // the newest question counts
  asking = new AbortController();
  const { signal } = asking;
  const question = text.value;
  complain(element("ask-problem"), question.trim() === "" ? "There is no text yet." : "");
  if (question.trim() === "") {
    text.focus();
    return;
  }
  if (firstChoice() === null) {
    await refresh(); // says what is wrong where there is still none
  }
  const choices = compare.checked ? [firstChoice(), secondChoice()] : [firstChoice()];
  if (choices.includes(null) || signal.aborted) {
    return;
  }
  element("answers").setAttribute("aria-busy", "true");
  const { results, problems } = await askEach(choices, question, signal);
  if (signal.aborted) {
    return;
  }
  show(question, results, problems);
  if (results.length > 0 || problems.some(({ status }) => status === 404)) {
    await refresh(); // another version may have come or gone
  }
}

/** One after the other: asked at once, the two would slow each other down and the times would say nothing. */
async function askEach(choices, question, signal) {
  const results = [];
  const problems = [];
  for (const choice of choices) {
    try {
      results.push(await askOne(choice, question, signal));
    } catch (error) {
      const words = inWords(error);
      const message = choices.length > 1 ? `${nameOf(choice)}: ${words}` : words;
      problems.push(...(words === null ? [] : [{ message, status: error.status }]));
    }
  }
  return { results, problems };
}

async function askOne(choice, question, signal) {
  try {
    return await askVersion(choice, question, signal);
  } catch (error) {
    if (choice.version !== null || error.status !== 404) {
      throw error;
    }
    return askVersion(choice, question, signal); // the latest version gave way to a newer one in between
  }
}

async function askVersion(choice, question, signal) {
  const served = { name: choice.name, version: await resolveVersion(choice, signal) };
  const { depth, soleOutput, hasStatistics } = await describe(served.name, served.version, signal);
  const { predictions, milliseconds } = await predict(served, [question], { depth, signal });
  const statistics = hasStatistics ? await textStatistics(served, question, signal) : null;
  return { served, answer: readPrediction(predictions[0], soleOutput), milliseconds, statistics };
}

function show(question, results, problems) {
  const answers = element("answers");
  answers.removeAttribute("aria-busy");
  answers.hidden = results.length === 0;
  element("asked-text").textContent = question.trim();
  element("cards").replaceChildren(...results.map(cardOf));
  const verdict = results.length === 2 ? compareAnswers(results[0].answer, results[1].answer) : "";
  element("verdict").textContent = verdict;
  element("verdict").hidden = verdict === "";
  element("ask-said").textContent = [...results.map(sentence), verdict].join(" ").trim();
  complain(element("ask-problem"), problems.map(({ message }) => message).join("\n"));
}

/** What a screen reader says of an answer: the bars can be read at leisure. */
function sentence({ served, answer, milliseconds }) {
  const said = answer.label === null ? "Answered" : `${answer.label}, ${percent(answer.probability)}`;
  return `${said}, by ${served.name} version ${served.version} in ${duration(milliseconds)}.`;
}

function nameOf({ name, version }) {
  return version === null ? name : `${name}, version ${version}`;
}
