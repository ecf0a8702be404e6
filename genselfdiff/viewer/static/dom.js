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

export function colourSquare([red, green, blue]) {
  const square = element("span", { className: "square" });
  square.style.backgroundColor = `rgb(${red}, ${green}, ${blue})`;
  return square;
}

// What the server answers; a refusal of it, or no answer at all, is an error for people.
export async function ask(address, signal, more = {}) {
  let answer;
  try {
    answer = await fetch(address, { signal, ...more });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Error("gsd view does not answer any more: start it again.");
  }
  if (!answer.ok) throw new Error(await answer.text());
  return answer;
}

// Send an object; what the server answers to it.
export async function send(address, content) {
  const headers = { "Content-Type": "application/json" };
  const more = { method: "POST", headers, body: JSON.stringify(content) };
  return (await ask(address, undefined, more)).json();
}
