// Two verdicts on one conversation.

import { element, isolated, probability } from "./elements.js";
import { WORDS, named, ranked } from "./names.js";

/** The two row by row; a category is the same where code and name are. */
export function comparison(left, right) {
  const scores = (verdict) => new Map(ranked(verdict).map((score) => [named(score), score]));
  const [ours, theirs] = [scores(left), scores(right)];
  const cell = (p) => element("td", null, p == null ? "–" : probability(p));
  const row = (name, a, b) => element("tr", null, element("th", { scope: "row" }, isolated(name)), a, b);
  const words = (verdict) => element("td", { class: verdict.action ?? "" }, WORDS[verdict.action] ?? "–");
  const head = ["", left.policy, right.policy].map((text) => element("th", { scope: "col" }, isolated(text)));
  const rows = [row("action", words(left), words(right))];
  for (const [name, field] of [
    ["P(unsafe)", "p_unsafe"],
    ["P(safe)", "p_safe"],
    ["unexplored", "unexplored"],
  ]) {
    rows.push(row(name, cell(left[field]), cell(right[field])));
  }
  for (const name of new Set([...ours.keys(), ...theirs.keys()])) {
    rows.push(row(name, cell(ours.get(name)?.marginal), cell(theirs.get(name)?.marginal)));
  }
  const caption = element("caption", { class: "visually-hidden" }, "Raw probabilities by the two policies");
  return element(
    "div",
    { class: "wide" },
    element(
      "table",
      { class: "compared" },
      caption,
      element("thead", null, element("tr", null, ...head)),
      element("tbody", null, ...rows),
    ),
  );
}
