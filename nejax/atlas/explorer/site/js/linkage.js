// A dendrogram as numbers: n leaves, and merges [[a, b, height, size], ...] where row k makes cluster n + k (SciPy's
// layout).

/** The clusters left when all merges with a height of at most `height` are made: [n] labels 0.. by first appearance. */
export function cut(merges, n, height) {
  const root = Array.from({ length: n + merges.length }, (_, node) => node);
  merges.forEach(([a, b, at], k) => {
    if (at <= height) root[a] = root[b] = n + k;
  });
  for (let node = root.length - 1; node >= 0; node--) root[node] = root[root[node]]; // a parent has the higher number
  const labels = new Map();
  return root.slice(0, n).map((node) => {
    if (!labels.has(node)) labels.set(node, labels.size);
    return labels.get(node);
  });
}

/** The same clusters by size, the largest 0; of equally large ones, the one that appears first. */
export function largestFirst(labels) {
  const sizes = [];
  for (const label of labels) sizes[label] = (sizes[label] ?? 0) + 1;
  const order = [...sizes.keys()].sort((a, b) => sizes[b] - sizes[a] || a - b);
  const rank = [];
  order.forEach((label, i) => (rank[label] = i));
  return labels.map((label) => rank[label]);
}

/** How many merges are made by a cut. */
export const mergesUpTo = (merges, height) => merges.filter(([, , at]) => at <= height).length;

/** The leaves from top to bottom such that no branches cross, the larger branch of each merge above. */
export function leafOrder(merges, n) {
  if (n < 2) return n ? [0] : [];
  const size = (node) => (node < n ? 1 : merges[node - n][3]);
  const order = [];
  const stack = [n + merges.length - 1];
  while (stack.length) {
    const node = stack.pop();
    if (node < n) order.push(node);
    else {
      const [a, b] = merges[node - n];
      stack.push(...(size(b) > size(a) ? [a, b] : [b, a])); // the last one is taken first
    }
  }
  return order;
}

/**
 * The sum of the distances over the pairs of leaves within each cluster of a cut, and over all pairs: {within, all}.
 *
 * In average linkage a merge's height is the mean distance between its two clusters, so the tree alone tells.
 */
export function pairDistances(merges, n, labels) {
  const within = Array(Math.max(0, ...labels.map((label) => label + 1))).fill(0);
  const owner = [...labels]; // the label of all leaves below a node, -1 where they differ
  const size = Array(n).fill(1);
  let all = 0;
  merges.forEach(([a, b, height, leaves]) => {
    const sum = size[a] * size[b] * height;
    const label = owner[a] === owner[b] ? owner[a] : -1;
    all += sum;
    if (label >= 0) within[label] += sum;
    owner.push(label);
    size.push(leaves);
  });
  return { within, all };
}

/** The shortest decimal in [low, high). */
export function shortest(low, high) {
  for (let digits = 2; digits < 8; digits++) {
    const value = Number((Math.ceil(low * 10 ** digits) / 10 ** digits).toFixed(digits));
    if (value >= low && value < high) return value;
  }
  return low;
}

/**
 * The cut next to one that makes `made` merges: with at least one cluster fewer (step 1) or more (step -1).
 *
 * Null where there is none. It is a [low, high) of heights that all give the same clusters.
 */
export function neighbourCut(merges, made, step) {
  const heights = merges.map(([, , height]) => height).sort((a, b) => a - b);
  let next = made + step;
  while (next > 0 && next < heights.length && heights[next] === heights[next - 1]) next += step;
  if (next < 0 || next > heights.length || (next === 0 && heights[0] <= 0)) return null;
  return [next ? heights[next - 1] : 0, heights[next] ?? Infinity];
}
