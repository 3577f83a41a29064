// One verdict as a card. Only what a verdict holds is drawn; see `Verdict` for what it means.

import { bar, element, isolated, keyedBar, probability, shown } from "./elements.js";
import { WORDS, named, ranked } from "./names.js";
import { beginnings, followed, tree } from "./tree.js";
import { windows } from "./windows.js";

/** What is decided, in a few words. */
export function summary(verdict) {
  const [first] = ranked(verdict);
  const decided = `${WORDS[verdict.action] ?? "No decision"} by policy ${verdict.policy}`;
  return `${decided}: P(unsafe) ${shown(verdict.p_unsafe)}, most probable ${named(first)} ${shown(first.marginal)}.`;
}

/** The whole verdict on `texts`, the conversation's contents. `limits`: thresholds by code, where they are known. */
export function card(answer, texts, limits) {
  const { verdict } = answer;
  return element(
    "article",
    { class: "card", "aria-label": `Verdict by policy ${verdict.policy}` },
    element("h3", null, "Policy ", isolated(verdict.policy)),
    decision(verdict),
    ...notes(verdict, answer.left_out ?? []),
    element("h4", null, "How the answer begins"),
    ...keyedBar(beginnings(verdict)),
    element("h4", null, "How far the answers were followed"),
    ...keyedBar(followed(verdict)),
    element("h4", null, "Categories, most probable first"),
    categories(verdict, limits),
    element("h4", null, "Which path carries which mass"),
    ...tree(verdict),
    element("h4", null, "The answer of greedy decoding"),
    element("pre", { class: "greedy", dir: "auto" }, verdict.greedy.text),
    verdict.greedy.complete
      ? null
      : element(
          "p",
          { class: "small soft" },
          "Followed only so far: there the guard leaves the grammar, or what the release explores.",
        ),
    ...windows(verdict, texts),
    facts(answer),
    element(
      "details",
      null,
      element("summary", null, "The verdict as JSON"),
      element("pre", null, JSON.stringify(verdict, null, 1)),
    ),
  );
}

function decision(verdict) {
  const flags = verdict.categories.filter((score) => score.flagged).map(named);
  if (verdict.unsafe_flagged) flags.unshift("the whole answer");
  let said = verdict.flagged ? `flagged: ${flags.join(", ") || "the guard gives no verdict"}` : "nothing is flagged";
  if (verdict.flagged == null) said = "nothing has a threshold under this policy";
  const kind = verdict.action ?? "undecided";
  return element(
    "p",
    { class: "decision" },
    element("span", { class: `action ${kind}` }, WORDS[kind] ?? "No decision"),
    element("span", { class: "flagged" }, said),
  );
}

function notes(verdict, leftOut) {
  const found = [];
  if (verdict.undecided)
    found.push("The guard answers something else than a verdict. Small probabilities mean nothing here.");
  if (verdict.windows?.length)
    found.push("Judged part by part: every number is that of the worst part, so they need not add up.");
  if (leftOut.length) found.push(`Not read: ${leftOut.join("; ")}.`);
  return found.map((text) => element("p", { class: "note" }, text));
}

function categories(verdict, limits) {
  const whole = {
    name: "the whole answer: P(unsafe)",
    marginal: verdict.p_unsafe,
    calibrated: verdict.p_unsafe_calibrated,
    flagged: verdict.unsafe_flagged,
  };
  const isCalibrated = verdict.calibration != null;
  const columns = isCalibrated ? 4 : 3;
  const rows = [...ranked(verdict).map((score) => [score, verdict.unexplored]), [whole, 0]].flatMap(
    ([score, unexplored]) => [
      element(
        "tr",
        { "data-code": score.code ?? "" },
        element(
          "th",
          { scope: "row" },
          score.code ? element("b", null, isolated(score.code), " ") : null,
          isolated(score.name),
        ),
        element("td", { class: "marginal" }, probability(score.marginal)),
        isCalibrated
          ? element("td", { class: "calibrated-score" }, score.calibrated == null ? "–" : probability(score.calibrated))
          : null,
        element("td", null, flag(score)),
      ),
      element(
        "tr",
        { class: "meter-row", "aria-hidden": "true" },
        element("td", { colspan: columns }, meters(score, unexplored, limits.get(score.code ?? ""))),
      ),
    ],
  );
  const keyed = (kind, name) => element("span", { class: `key ${kind}` }, element("span", null, name));
  const titles = ["Category", keyed("raw", "Raw"), isCalibrated ? keyed("calibrated", "Calibrated") : null, "Flag"];
  const head = titles.filter((title) => title).map((title) => element("th", { scope: "col" }, title));
  return element(
    "table",
    { class: "scores" },
    element("thead", null, element("tr", null, ...head)),
    element("tbody", null, ...rows),
  );
}

/** What is decided of one score; – where nothing decides. */
function flag(score) {
  if (score.flagged) return element("b", { class: "block" }, "flagged");
  if (score.action === "review") return element("b", { class: "review" }, "review");
  return score.flagged == null && score.action == null ? "–" : "no";
}

function meters(score, unexplored, limits) {
  const found = element(
    "div",
    { class: "meters" },
    bar([
      [score.marginal, "raw"],
      [Math.min(unexplored, 1 - score.marginal), "unknown"],
    ]),
  );
  if (score.calibrated != null) found.append(bar([[score.calibrated, "calibrated"]]));
  for (const kind of ["review", "threshold"]) {
    if (limits?.[kind] == null) continue;
    const line = element("span", { class: `threshold is-${kind}`, title: `${kind} ${limits[kind]}` });
    line.style.left = `${100 * limits[kind]}%`;
    found.append(line);
  }
  return found;
}

function facts({ verdict, requestId }) {
  const found = [`release ${verdict.release}`, `${verdict.role}'s turn judged`, `${verdict.num_tokens} tokens read`];
  found.push(
    `${verdict.num_truncated_tokens} dropped`,
    verdict.calibration == null ? "not calibrated" : `calibration ${verdict.calibration}`,
  );
  return element("p", { class: "small soft facts" }, `${found.join(" · ")} · request ${requestId}`);
}
