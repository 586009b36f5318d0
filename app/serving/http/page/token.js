// The dialog that asks for a token. What is typed leaves it as a value and is wiped from the field.

const dialog = document.getElementById("token-dialog");
const form = document.getElementById("token-form");
const field = document.getElementById("token");
const message = document.getElementById("token-message");

// What RFC 6750 allows in a bearer token, and every other visible ASCII sign. A header takes nothing else.
const SENDABLE = /^[\x21-\x7e]+$/;

let opened = null;

/** Ask for a token; null when the person does not give one. Requests that ask at the same time share one dialog. */
export function askForToken(why) {
  opened ??= show(why).finally(() => {
    opened = null;
  });
  return opened;
}

function show(why) {
  message.textContent = why;
  dialog.showModal();
  field.focus();
  return new Promise((resolve) => {
    const finish = (value) => {
      listening.abort();
      field.value = "";
      dialog.close();
      resolve(value);
    };
    const listening = new AbortController();
    const { signal } = listening;
    form.addEventListener("submit", (event) => submit(event, finish), { signal });
    document.getElementById("token-cancel").addEventListener("click", () => finish(null), { signal });
    dialog.addEventListener("close", () => finish(null), { signal }); // the Escape key
  });
}

function submit(event, finish) {
  event.preventDefault();
  const value = field.value.trim();
  if (SENDABLE.test(value)) {
    finish(value);
    return;
  }
  message.textContent = value
    ? "A token has only letters, digits and signs of ASCII, and no spaces."
    : "Type the token, or cancel.";
  field.focus();
}
