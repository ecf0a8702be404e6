// Elements of the page, made without any HTML in text: names come from files of other people.

export function byId(id) {
  return document.getElementById(id);
}

// An element with properties, or attributes where their name has a hyphen, and what is in it.
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-")) made.setAttribute(name, value);
    else made[name] = value;
  }
  made.append(...children);
  return made;
}

// Put other children into an element; what was chosen by the keyboard stays that, if it is there.
export function refill(place, children) {
  const all = () => [...place.querySelectorAll("button, input, select")];
  const told = (node) => [node.tagName, node.type, node.getAttribute("aria-label"), node.textContent,
    node.closest("label")?.textContent].join("|");
  const before = all().find((node) => node === document.activeElement);
  place.replaceChildren(...children);
  if (before) all().find((node) => told(node) === told(before))?.focus({ preventScroll: true });
}

export function colourSquare([red, green, blue]) {
  const square = element("span", { className: "square" });
  square.style.backgroundColor = `rgb(${red}, ${green}, ${blue})`;
  return square;
}

// After so long a server that did not answer is asked again.
export const AGAIN_MS = 2000;

// What the server answers; a refusal of it, or no answer at all, is an error for people: only that
// of a refusal has a `status`.
export async function ask(address, signal, more = {}) {
  let answer;
  try {
    answer = await fetch(address, { signal, ...more });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Error("gsd view does not answer any more: start it again.");
  }
  if (!answer.ok) throw Object.assign(new Error(await answer.text()), { status: answer.status });
  return answer;
}

// Send an object, or a text of another kind; what the server answers to it.
export async function send(address, content, kind = "application/json") {
  const body = kind === "application/json" ? JSON.stringify(content) : content;
  const more = { method: "POST", headers: { "Content-Type": kind }, body };
  return (await ask(address, undefined, more)).json();
}
