// The dendrogram of a neuron's examples: leaves from top to bottom, distances from left to right, and the line that
// cuts it.

import { useMemo } from "../vendor/hooks.js";
import { BottomAxis, linear, useWidth } from "./chart.js";
import { featureColour } from "./colours.js";
import { CutLine } from "./cut_line.js";
import { counted, decimal } from "./format.js";
import { html } from "./html.js";
import { mergesUpTo, neighbourCut, shortest } from "./linkage.js";
import { peakName } from "./tokens.js";

const MARGIN = { left: 92, right: 20, top: 24, bottom: 36 };
const ROWS = { least: 180, most: 340, each: 4.6 };
const SMALLEST_LABEL = 11; // pixels of height that a feature needs for its name
const LONGEST_LABEL = 9;

/** order: the leaves from top to bottom. cut: null where the features are the atlas's. latestCut: of `useCut`. */
export function Dendrogram({
  neuron,
  clustering,
  highlight,
  selected,
  order,
  cut,
  method,
  onCut,
  latestCut,
  onSelect,
}) {
  const [ref, width] = useWidth(400);
  const { merges, examples } = neuron;
  const highest = Math.max(...merges.map(([, , height]) => height));
  const top = Math.max(highest * 1.06, method.isCut ? (neuron.height ?? 0) * 1.03 : 0, 0.05);
  const wanted = Math.max(order.length * ROWS.each, ROWS.least);
  const height = Math.min(wanted, ROWS.most, Math.max(ROWS.least, innerHeight * 0.27));
  const x = linear([0, top], [MARGIN.left, width - MARGIN.right]);
  const y = linear([0, order.length - 1], [MARGIN.top + 4, MARGIN.top + height - 4]);
  const atlasCut = method.isCut ? neuron.height : null;
  const start = atlasCut ?? sameNumber(merges, neuron.features.length);
  const at = Math.min(cut ?? start, top);
  const tree = useMemo(() => layout(merges, order), [neuron]);
  const dims = (feature) => (highlight.focus !== null && highlight.focus !== feature ? " dim" : "");
  const row = (order.length > 1 ? y(1) - y(0) : height) || 1;
  const said =
    `Dendrogram of ${counted(examples.length, "example")} by average linkage, ` +
    `the last merge at distance ${decimal(highest)}; ` +
    (cut === null && !method.isCut ? "" : `cut at ${decimal(at)}: `) +
    `${counted(clustering.features.length, "feature")}.`;

  const branches = useMemo(() => branchPaths(tree, clustering.labels, x, y), [tree, clustering, width, height]);
  const leaves = useMemo(
    () =>
      order.map(
        (i, place) => html`<rect key=${i} class="leaf-row" data-example=${i} x="0" y=${y(place) - row / 2}
          width=${x(tree.parentHeight[i])} height=${row} onClick=${() => onSelect(i)} />`,
      ),
    [tree, width, height],
  );
  return html`<section class="chart" id="dendrogram" aria-labelledby="dendrogram-title">
    <div class="section-head">
      <h2 id="dendrogram-title">Dendrogram</h2>
      <${Stepper} merges=${merges} at=${cut ?? start} n=${clustering.features.length} atlasCut=${atlasCut}
        onCut=${onCut} />
    </div>
    <div ref=${ref} class="chart-frame">
      <svg width=${width} height=${height + MARGIN.top + MARGIN.bottom} role="group" aria-label=${said}>
        ${leaves}
        ${[...branches].map(
          ([feature, d]) => html`<path key=${feature} class=${`branch${feature < 0 ? " above" : dims(feature)}`} d=${d}
            style=${{ stroke: feature < 0 ? undefined : featureColour(feature) }} />`,
        )}
        ${order.map(
          (i, place) => html`<circle key=${i} class=${`leaf${dims(clustering.labels[i])}`} cx=${x(0)} cy=${y(place)}
            r=${Math.min(2.4, row / 2)} style=${{ fill: featureColour(clustering.labels[i]) }} />`,
        )}
        ${labels(order, clustering, y, row).map(
          ({ feature, place, text }) => html`<text key=${feature}
            class=${`leaf-label${dims(feature)}`} x=${x(0) - 8} y=${place}
            data-feature=${feature} style=${{ "--colour": featureColour(feature) }}>${text} <tspan>${feature}</tspan></text>`,
        )}
        ${[selected, highlight.example].filter((i) => i !== null).map(
          (i, k) => html`<g key=${k} class=${k === 0 && i === selected ? "leaf-selected" : "leaf-lit"}
            aria-hidden="true">
            <line x1=${x(0)} x2=${x(tree.parentHeight[i])} y1=${y(tree.place[i])} y2=${y(tree.place[i])}
              style=${{ stroke: featureColour(clustering.labels[i]) }} />
            <circle cx=${x(0)} cy=${y(tree.place[i])} r="4.5" style=${{ fill: featureColour(clustering.labels[i]) }} />
          </g>`,
        )}
        <${BottomAxis} scale=${x} low=${0} high=${top} y=${MARGIN.top + height} title="cosine distance" />
        ${atlasCut !== null && cut !== null &&
        html`<line class="atlas-cut" x1=${x(atlasCut)} x2=${x(atlasCut)} y1=${MARGIN.top} y2=${MARGIN.top + height} />`}
        <${CutLine} x=${x} at=${at} top=${top} y1=${MARGIN.top} y2=${MARGIN.top + height} atlasCut=${atlasCut}
          isApplied=${cut !== null || method.isCut} n=${clustering.features.length} onCut=${onCut}
          latest=${() => latestCut() ?? start} />
      </svg>
    </div>
    ${!method.isCut &&
    html`<p class="soft chart-note">
      The atlas’s features are from ${method.name}, not from a cut of this tree. Drag the line to cut it instead.
    </p>`}
  </section>`;
}

/** One feature fewer, or one more. */
function Stepper({ merges, at, n, atlasCut, onCut }) {
  const made = mergesUpTo(merges, at);
  const button = (step, sign, name) => {
    const next = neighbourCut(merges, made, step);
    const isAtlasCut = () => next[0] <= atlasCut && atlasCut < next[1] && atlasCut !== null;
    const press = () => onCut(isAtlasCut() ? null : shortest(...next));
    return html`<button type="button" aria-label=${name} title=${name} disabled=${!next}
      onClick=${press}>${sign}</button>`;
  };
  return html`<span class="stepper" role="group" aria-label="Number of features">
    ${button(1, "−", "Fewer features")} <output
      id="n-features">${counted(n, "feature")}</output> ${button(-1, "+", "More features")}
  </span>`;
}

/** A height at which the tree falls into `n` clusters, or nearly so. */
function sameNumber(merges, n) {
  const heights = [0, ...merges.map(([, , height]) => height).sort((a, b) => a - b)];
  const made = Math.max(0, merges.length + 1 - n);
  return shortest(heights[made], heights[made + 1] ?? Infinity);
}

/** {place: row of each leaf, nodes: merges, their from and to being [height, row], parentHeight: of each leaf}. */
function layout(merges, order) {
  const n = order.length;
  const place = [];
  order.forEach((leaf, row) => (place[leaf] = row));
  const at = place.map((row) => [0, row]); // height and row of every node
  const parentHeight = Array(n).fill(0);
  const nodes = merges.map(([a, b, height]) => {
    for (const child of [a, b]) if (child < n) parentHeight[child] = height;
    at.push([height, (at[a][1] + at[b][1]) / 2]);
    return { a, b, height, from: at[a], to: at[b] };
  });
  return { place, nodes, parentHeight };
}

/** The lines of each feature as one path; -1 has those between features. */
function branchPaths({ nodes }, labels, x, y) {
  const owner = [...labels];
  const paths = new Map([[-1, ""]]);
  const px = (value) => value.toFixed(1);
  for (const { a, b, height, from, to } of nodes) {
    const feature = owner[a] === owner[b] ? owner[a] : -1;
    owner.push(feature);
    const d = `M${px(x(from[0]))} ${px(y(from[1]))}H${px(x(height))}V${px(y(to[1]))}H${px(x(to[0]))}`;
    paths.set(feature, (paths.get(feature) ?? "") + d);
  }
  return paths;
}

/** Names of the features whose leaves are together and have room: their most frequent peak token. */
function labels(order, { labels: of, features }, y, row) {
  const found = [];
  for (let first = 0; first < order.length; ) {
    const feature = of[order[first]];
    let end = first + 1;
    while (end < order.length && of[order[end]] === feature) end++;
    const isWhole = end - first === features[feature].members.length;
    if (isWhole && (end - first) * row >= SMALLEST_LABEL && features[feature].peaks.length) {
      const name = [...peakName(features[feature].peaks[0][0])];
      const text = name.length > LONGEST_LABEL ? `${name.slice(0, LONGEST_LABEL - 1).join("")}…` : name.join("");
      found.push({ feature, place: (y(first) + y(end - 1)) / 2 + 4, text });
    }
    first = end;
  }
  return found;
}
