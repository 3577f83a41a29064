// How verdicts are spoken of.

export const WORDS = { allow: "Allow", review: "Review", block: "Block" };

/** The categories, most probable first. */
export const ranked = (verdict) => verdict.categories.toSorted((a, b) => b.marginal - a.marginal);

/** A category by its code and its name. */
export const named = (score) => `${score.code} ${score.name}`;
