// What other thresholds would do to the labelled rows that a policy was calibrated on. Nothing that is served changes.

import { element, isolated, visible } from "./elements.js";

const sum = (counts) => counts.reduce((total, count) => total + count, 0);
const share = (part, whole) => (whole ? part / whole : null);
const bound = (p) => String(Number(p.toFixed(4)));
const said = (p, digits = 3) => (p == null ? "–" : p.toFixed(digits));

/**
 * What a threshold at the lower bound of bucket `place` does, where a share `base` of all messages has the category:
 *
 *   alerts = recall · base + falseAlarms · (1 − base)        precision = recall · base / alerts
 *
 * Shares of nothing are null.
 */
export function outcome({ positives, negatives }, place, base) {
  const [found, wrong] = [positives, negatives].map((counts) => sum(counts.slice(place)));
  const [recall, falseAlarms] = [share(found, sum(positives)), share(wrong, sum(negatives))];
  const alerts = (recall ?? 0) * base + (falseAlarms ?? 0) * (1 - base);
  return { found, wrong, recall, falseAlarms, alerts, precision: share((recall ?? 0) * base, alerts) };
}

/** The bound that is nearest to a threshold. */
function nearest(edges, threshold) {
  const distance = (place) => Math.abs(edges[place] - threshold);
  return edges.reduce((best, _, place) => (distance(place) < distance(best) ? place : best), 0);
}

/** A row of the table, which computes itself anew when its slider or its base rate is moved. */
function row(score) {
  const { edges } = score;
  const [positives, rows] = [sum(score.positives), sum(score.positives) + sum(score.negatives)];
  const inEffect = score.threshold == null ? edges.indexOf(0.5) : nearest(edges, score.threshold);
  const name = visible(score.code === "unsafe" ? score.name : `${score.code} ${score.name}`);
  const slider = element("input", {
    type: "range",
    min: 0,
    max: edges.length - 1,
    value: inEffect,
    "aria-label": `Threshold of ${name}`,
  });
  const base = element("input", {
    type: "number",
    min: 0,
    max: 1000,
    step: "any",
    value: said((1000 * positives) / rows, 0),
    "aria-label": `Of 1,000 messages, how many have ${name}`,
  });
  const [at, precision, recall, alerts] = ["output", "b", "b", "b"].map((tag) => element(tag, null));
  const [found, wrong] = [1, 2].map(() => element("span", { class: "small soft" }));
  const cell = (label, ...children) => element("td", { "data-label": label }, ...children);
  function compute() {
    const place = Number(slider.value);
    const now = outcome(score, place, Math.min(1, Math.max(0, Number(base.value) / 1000)));
    at.textContent = bound(edges[place]);
    slider.setAttribute("aria-valuetext", bound(edges[place]));
    precision.textContent = said(now.precision);
    recall.textContent = said(now.recall);
    alerts.textContent = said(1000 * now.alerts, 1);
    found.textContent = ` ${now.found} of ${positives} rows`;
    wrong.textContent = ` wrong: ${now.wrong} of ${rows - positives} rows`;
  }
  for (const field of [slider, base]) field.addEventListener("input", compute);
  compute();
  const effect = score.threshold == null ? "none in effect" : `in effect: ${bound(score.threshold)}`;
  const made = element(
    "tr",
    { "data-code": score.code },
    element("th", { scope: "row" }, isolated(name)),
    element("td", { class: "slide" }, slider, at, element("span", { class: "small soft" }, ` ${effect}`)),
    cell("Base rate of 1,000", base),
    cell("Precision", precision),
    cell("Recall", recall, found),
    cell("Alerts per 1,000", alerts, wrong),
  );
  return {
    made,
    reset: () => {
      slider.value = inEffect;
      compute();
    },
  };
}

/** The table of one policy, from the gateway's answer. */
export function thresholds({ release, policy, calibration, unlabelled, scores }) {
  const rows = scores.map(row);
  const titles = ["Category", "Threshold", "Base rate", "Precision", "Recall", "Alerts per 1,000"];
  const head = titles.map((title) => element("th", { scope: "col" }, title));
  const back = element("button", { type: "button" }, "Back to the thresholds in effect");
  back.addEventListener("click", () => rows.forEach((one) => one.reset()));
  const absent =
    unlabelled === "negative"
      ? "A category that a row says nothing of counts as absent, so precision is rather higher."
      : "Rows that say nothing of a category are left out of its numbers.";
  return [
    element(
      "p",
      { class: "small soft" },
      `Policy ${policy} of release ${release}, on the rows that its calibration ${calibration} was fitted on: on others ` +
        `expect somewhat less. ${absent} The base rate is how many of 1,000 messages have it, at first as among these ` +
        "rows; write that of your traffic. Nothing here changes what is served.",
    ),
    element(
      "table",
      { class: "sliders" },
      element("caption", { class: "visually-hidden" }, "Thresholds, and what they do to labelled rows"),
      element("thead", null, element("tr", null, ...head)),
      element("tbody", null, ...rows.map((one) => one.made)),
    ),
    back,
  ];
}

/** Fill `place` when `details` are opened, and anew when `policy` may have changed. `ask` gets the gateway's JSON. */
export function watch(details, place, policy, ask) {
  let shown = null;
  async function show() {
    const name = policy();
    if (!details.open || shown === name) return;
    shown = name;
    try {
      const answer = await ask(`v1/scores${name ? `?policy=${encodeURIComponent(name)}` : ""}`);
      if (shown === name) place.replaceChildren(...thresholds(answer));
    } catch (reason) {
      if (shown === name) place.replaceChildren(element("p", { class: "note" }, reason.message));
      if (reason.status !== 404) shown = null; // a key may be given, or the gateway come back
    }
  }
  details.addEventListener("toggle", show);
  return show;
}
