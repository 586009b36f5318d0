// Sentences that appear, and are read out by screen readers, when something happened.

/** Show a message in an element with role alert, or hide it where there is none. */
export function complain(element, message = "") {
  element.textContent = message;
  element.hidden = message === "";
}

/** A failure in words; null for what the person stopped. */
export function inWords(error) {
  if (error.name === "AbortError") {
    return null;
  }
  if (error.name === "ServerError" || error.name === "FileError") {
    return error.message;
  }
  console.error(error); // a fault of this page: whoever mends it wants the place
  return `This page failed: ${error.message}`;
}
