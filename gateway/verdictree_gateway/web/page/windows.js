// The parts of a long conversation that were judged by themselves, and where they lie in it.

import { element, isolated, probability } from "./elements.js";

/** A button for each part, and the conversation with the chosen part marked, at first the worst. */
export function windows(verdict, texts) {
  const parts = verdict.windows ?? [];
  if (!parts.length) return [];
  const text = element("pre", {
    class: "parts",
    dir: "auto",
    tabindex: "0",
    "aria-label": "The conversation with the chosen part highlighted",
  });
  const buttons = parts.map((part, number) => {
    const codes = verdict.categories.filter((score) => score.window === number).map((score) => score.code);
    const worst = codes.length ? `, worst for ${codes.join(", ")}` : "";
    const button = element(
      "button",
      { type: "button", "aria-pressed": "false" },
      `Part ${number + 1}: P(unsafe) `,
      probability(part.p_unsafe),
      worst,
    );
    button.addEventListener("click", () => choose(number));
    return button;
  });
  function choose(number) {
    buttons.forEach((button, other) => button.setAttribute("aria-pressed", String(other === number)));
    text.replaceChildren(...highlighted(texts, parts[number]));
    const [first] = text.getElementsByTagName("mark");
    // The first choice is made before the text has a place on the page.
    if (first) requestAnimationFrame(() => (text.scrollTop = first.offsetTop - text.offsetTop - 20));
  }
  choose(parts.reduce((worst, part, number) => (part.p_unsafe > parts[worst].p_unsafe ? number : worst), 0));
  return [element("h4", null, "Parts"), element("div", { class: "windows" }, ...buttons), text];
}

/** The texts with one window marked. Places count Unicode's characters, of which a JavaScript string may need two. */
function highlighted(texts, { begin, end }) {
  return texts.flatMap((content, message) => {
    const characters = Array.from(content);
    const from = message < begin.message ? characters.length : message > begin.message ? 0 : begin.character;
    const to = message < end.message ? characters.length : message > end.message ? 0 : end.character;
    const cut = (start, stop) => characters.slice(start, stop).join("");
    const middle = from < to ? element("mark", null, cut(from, to)) : null;
    const pieces = middle ? [isolated(cut(0, from)), middle, isolated(cut(to))] : [isolated(content)];
    return message ? [document.createTextNode("\n\n"), ...pieces] : pieces;
  });
}
