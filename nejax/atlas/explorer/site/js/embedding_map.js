// A neuron's examples on a plane: the first two principal coordinates of their embeddings.

import { useMemo } from "../vendor/hooks.js";
import { linear, ticks, tickText, useWidth } from "./chart.js";
import { peakText } from "./clustering.js";
import { featureColour } from "./colours.js";
import { counted, decimal, percent } from "./format.js";
import { html } from "./html.js";
import { peakName } from "./tokens.js";

const MARGIN = { left: 34, right: 12, top: 10, bottom: 20 };
const REACH = 14; // pixels from a point within which it is meant, also where another lies over it
const WHAT =
  "The two principal coordinates of its embeddings, in equal units; " +
  "examples close together excite it for similar reasons";
const N_NAMED = 6; // features that have a colour of their own, and so a number in the map

/** Points are one tab stop: arrows go along the leaves of the dendrogram, where neighbours are alike. */
export function EmbeddingMap({ neuron, clustering, highlight, selected, order, onSelect }) {
  const [ref, width] = useWidth(400);
  const { examples, coordinates_share: share } = neuron;
  const height = Math.round(Math.min(width * 0.72, Math.max(210, innerHeight * 0.27)));
  const known = useMemo(() => examples.flatMap(({ x, y }, i) => (x !== null && y !== null ? [i] : [])), [neuron]);
  const { x, y, xTicks, yTicks } = useMemo(
    () => scales(known.map((i) => examples[i]), width, height),
    [known, width, height],
  );
  if (!known.length) {
    return html`<section class="chart" id="map"><h2>Map</h2><p
      class="soft">The distances between its examples are not finite: no map can be drawn.</p></section>`;
  }
  const central = new Set(clustering.features.filter(({ members }) => members.length > 1).map((one) => one.central));
  const current = highlight.example ?? selected ?? order[0];
  const move = (event) => {
    const at = order.indexOf(current);
    const places = {
      ArrowRight: at + 1, ArrowDown: at + 1, ArrowLeft: at - 1, ArrowUp: at - 1, Home: 0, End: order.length - 1,
    };
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Enter" || event.key === " ") onSelect(current);
    else if (event.key in places) highlight.point(order[(places[event.key] + order.length) % order.length]);
    else return;
    event.preventDefault();
  };
  const nearest = ({ currentTarget, clientX, clientY }) => {
    const { left, top } = currentTarget.getBoundingClientRect();
    const away = (i) => Math.hypot(x(examples[i].x) - clientX + left, y(examples[i].y) - clientY + top);
    const best = known.reduce((near, i) => (away(i) < away(near) ? i : near));
    return away(best) < REACH ? best : null;
  };
  const name = (i) => {
    const text = peakText(neuron, examples[i]);
    const peak = text === null ? "" : `, peak ${peakName(text)}`;
    return `Example ${i}, feature ${clustering.labels[i]}${peak}, activation ${decimal(examples[i].activation)}`;
  };
  const dim = (i) => highlight.focus !== null && clustering.labels[i] !== highlight.focus;
  const marked = [
    ["selected", selected],
    ["lit", highlight.example],
  ].filter(([, i]) => known.includes(i));
  return html`<section class="chart" id="map" aria-labelledby="map-title">
    <div class="section-head">
      <h2 id="map-title">Map</h2>
      <span class="soft chart-note"
        title=${WHAT}>
        two principal coordinates${share === null ? "" : html`: <strong>${percent(share)}</strong> of the variance`}
      </span>
    </div>
    <div ref=${ref} class="chart-frame">
      <svg width=${width} height=${height} role="listbox" tabindex="0" data-arrows
        aria-label=${said(neuron, clustering)}
        aria-activedescendant=${`point-${current}`} onKeyDown=${move}
        onPointerMove=${(event) => highlight.point(nearest(event))}
        onClick=${(event) => nearest(event) !== null && onSelect(nearest(event))}>
        <g class="map-axes" aria-hidden="true">
          ${xTicks.map(
            (value) => html`<g key=${value} class=${value === 0 ? "zero" : ""}>
              <line x1=${x(value)} x2=${x(value)} y1=${MARGIN.top} y2=${height - MARGIN.bottom} />
              <text x=${x(value)} y=${height - 6} text-anchor="middle">${tickText(value)}</text>
            </g>`,
          )}
          ${yTicks.map(
            (value) => html`<g key=${value} class=${value === 0 ? "zero" : ""}>
              <line x1=${MARGIN.left} x2=${width - MARGIN.right} y1=${y(value)} y2=${y(value)} />
              <text x=${MARGIN.left - 5} y=${y(value) + 4} text-anchor="end">${tickText(value)}</text>
            </g>`,
          )}
        </g>
        ${known.map(
          (i) => html`<circle key=${i}
            id=${`point-${i}`} class=${`point${central.has(i) ? " central" : ""}${dim(i) ? " dim" : ""}`}
            data-example=${i} role="option" aria-selected=${i === selected} aria-label=${name(i)} cx=${x(examples[i].x)}
            cy=${y(examples[i].y)} r=${central.has(i) ? 6 : 4}
            style=${{ fill: featureColour(clustering.labels[i]) }} />`,
        )}
        ${marked.map(
          ([mark, i]) => html`<circle key=${mark}
            class=${`point ${mark}`} aria-hidden="true" r="7" cx=${x(examples[i].x)}
            cy=${y(examples[i].y)} style=${{ fill: featureColour(clustering.labels[i]) }} />`,
        )}
        <g class="map-labels" aria-hidden="true">
          ${clustering.features.slice(0, N_NAMED).filter(({ members }) => members.length > 1).map((one) => {
            const at = labelled(one, examples);
            return at === null ? null : html`<text key=${one.feature} class=${dim(one.members[0]) ? "dim" : ""}
              x=${x(examples[at].x) + 8} y=${y(examples[at].y) - 6}
              style=${{ "--colour": featureColour(one.feature) }}>${one.feature}</text>`;
          })}
        </g>
      </svg>
    </div>
    ${central.size > 0 && !central.has(null) && html`<p class="visually-hidden">Ringed: central examples.</p>`}
  </section>`;
}

/** Equal units on both axes, all points within. */
function scales(points, width, height) {
  const inner = { width: width - MARGIN.left - MARGIN.right, height: height - MARGIN.top - MARGIN.bottom };
  const span = (name) => {
    const values = points.map((point) => point[name]);
    return [Math.min(0, ...values), Math.max(0, ...values)];
  };
  const [x, y] = [span("x"), span("y")];
  const unit = Math.max((x[1] - x[0]) / (inner.width - 20), (y[1] - y[0]) / (inner.height - 20)) || 1 / inner.height;
  const around = ([low, high], pixels) => [(low + high - pixels * unit) / 2, (low + high + pixels * unit) / 2];
  const [across, up] = [around(x, inner.width), around(y, inner.height)];
  const step = 4;
  return {
    x: linear(across, [MARGIN.left, width - MARGIN.right]),
    y: linear(up, [height - MARGIN.bottom, MARGIN.top]),
    xTicks: ticks(...across, Math.round((step * inner.width) / inner.height)),
    yTicks: ticks(...up, step),
  };
}

/** The example that a feature's number stands at: the central one, or that nearest to the middle of its points. */
function labelled({ central, members }, examples) {
  const known = members.filter((i) => examples[i].x !== null);
  if (central !== null && known.includes(central)) return central;
  const mean = (name) => known.reduce((sum, i) => sum + examples[i][name], 0) / known.length;
  const [x, y] = [mean("x"), mean("y")];
  const distance = (i) => (examples[i].x - x) ** 2 + (examples[i].y - y) ** 2;
  return known.length ? known.reduce((best, i) => (distance(i) < distance(best) ? i : best)) : null;
}

function said({ examples, coordinates_share: share }, { features }) {
  const shows = share === null ? "" : `, which show ${percent(share)} of the variance`;
  const colours = `coloured by ${counted(features.length, "feature")}`;
  return `Map of ${counted(examples.length, "example")} by two principal coordinates${shows}, ${colours}`;
}
