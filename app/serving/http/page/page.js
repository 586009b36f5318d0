// The page: what is served, one text, a file of texts.

import { whenTokenIsWanted } from "./api.js";
import { startAsking } from "./ask.js";
import { offer } from "./choices.js";
import { startFiles } from "./file.js";
import { listModels } from "./models.js";
import { complain, inWords } from "./notice.js";
import { askForToken } from "./token.js";

/** Show the models that the server has now. */
async function refresh() {
  const problem = document.getElementById("page-problem");
  try {
    const models = await listModels();
    offer(models);
    complain(problem, models.length ? "" : "This server has no model to ask.");
  } catch (error) {
    complain(problem, inWords(error) ?? "");
  }
}

whenTokenIsWanted(askForToken);
startAsking(refresh);
startFiles(refresh);
document.addEventListener("visibilitychange", () => {
  if (document.visibilityState === "visible") {
    refresh(); // versions may have changed since this tab was last looked at
  }
});
refresh();
