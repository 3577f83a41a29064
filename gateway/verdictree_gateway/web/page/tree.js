// Where the probability goes: how answers begin, how far they were followed, and what they name.

import { bar, element, isolated, probability } from "./elements.js";
import { named, ranked } from "./names.js";

const SMALL = 0.001; // categories below it share one line of the tree

/** Shares of 1: how an answer begins. */
export function beginnings(verdict) {
  const shares = [[verdict.p_safe, "safe", "P(safe)"]];
  if (verdict.p_controversial != null) shares.push([verdict.p_controversial, "between", "P(controversial)"]);
  shares.push([verdict.p_unsafe, "unsafe", "P(unsafe)"]);
  const neither = Math.max(0, 1 - shares.reduce((sum, [share]) => sum + share, 0));
  return [...shares, [neither, "rest", "otherwise"]];
}

/** What was not followed to its end may begin with any verdict: these are other shares of the same 1. */
export function followed(verdict) {
  const within = Math.max(0, verdict.unexplored - verdict.off_grammar);
  return [
    [1 - verdict.unexplored, "explored", "to their end"],
    [within, "unknown", "not to their end"],
    [verdict.off_grammar, "rest", "off the grammar"],
  ];
}

/** The paths by their mass, and how to read them. */
export function tree(verdict) {
  const path = new Set(verdict.greedy.labels);
  const branch = (name, mass, kind, isOnPath, children = [], note = null) =>
    element(
      "li",
      isOnPath ? { class: "on-path" } : null,
      element(
        "div",
        { class: "branch" },
        element("span", { class: "name" }, isolated(name)),
        probability(mass),
        bar([[mass, kind]]),
        note,
      ),
      children.length ? element("ul", null, ...children) : null,
    );
  const large = ranked(verdict).filter((score) => score.marginal >= SMALL);
  const labels = large.map((score) => {
    const isNamed = path.has(score.code);
    const joint = isNamed
      ? element("span", { class: "soft" }, "joint probability of the greedy path up to here ", probability(score.joint))
      : null;
    return branch(`names ${named(score)}`, score.marginal, "raw", isNamed, [], joint);
  });
  const small = verdict.categories.length - large.length;
  if (small)
    labels.push(
      element("li", { class: "soft" }, `${small} ${small === 1 ? "category" : "categories"} below ${SMALL} each`),
    );
  const begins = beginnings(verdict).map(([mass, kind]) => {
    const isUnsafe = kind === "unsafe";
    const word = {
      safe: "begins with safe",
      between: "begins with controversial",
      unsafe: "begins with unsafe",
      rest: "begins otherwise",
    }[kind];
    return branch(word, mass, kind, isUnsafe && path.size > 0, isUnsafe ? labels : []);
  });
  const open = branch("of all these, not followed to their end (unexplored)", verdict.unexplored, "unknown", false);
  return [
    element("ul", { class: "tree" }, ...begins, open),
    element(
      "p",
      { class: "small soft" },
      "Every bar goes from 0 to 1. A category's is the mass of all answers that name it, at whatever place. ",
      "Answers may name several, so these overlap. What was not followed to its end may name any category: ",
      "a true marginal lies between the raw one and the raw one plus unexplored (hatched). ",
      "● lies on the greedy path.",
    ),
  ];
}
