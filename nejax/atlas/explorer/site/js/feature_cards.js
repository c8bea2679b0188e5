// A neuron's features, largest first: what each answers to, and a few of its examples.

import { featureColour } from "./colours.js";
import { ContextLine } from "./context_line.js";
import { counted, decimal, often, percent } from "./format.js";
import { html } from "./html.js";
import { PeakChips } from "./peak_chips.js";
import { setQuery, to } from "./route.js";

const N_CONTEXTS = 3;
const N_ORIGINS = 4;
const NOTHING = { example: null, feature: null, focus: null };

/**
 * The features of a clustering as cards, those of one example in a list behind them.
 *
 * selected: an example that its card shows in any case. isOwn: whether the features are the atlas's. pinned: the
 * feature whose button is pressed. compact: one example a card, none of the features of one example, and nothing to
 * press.
 */
export function FeatureCards({
  neuron,
  clustering,
  scale,
  highlight = NOTHING,
  selected = null,
  isOwn = true,
  pinned,
  compact = false,
}) {
  const several = clustering.features.filter(({ members }) => members.length > 1);
  const single = clustering.features.slice(several.length);
  const shared = { neuron, clustering, scale, selected, lit: highlight.example, isOwn, compact };
  const state = ({ feature }) => `${feature === highlight.feature ? " lit" : ""}${feature === pinned ? " pinned" : ""}`;
  return html`<div class=${`feature-cards${compact ? " compact" : ""}`} onClick=${openExample}>
    <${Shares} clustering=${clustering} highlight=${highlight} />
    ${several.map(
      (one) => html`<${Card} key=${one.members[0]} ...${shared} one=${one} state=${state(one)}
        isPinned=${one.feature === pinned} />`,
    )}
    ${single.length > 0 &&
    html`<section class="single-features" aria-labelledby=${compact ? undefined : "single-title"}>
      <h3 id=${compact ? undefined : "single-title"}>${counted(single.length, "feature")} of one example</h3>
      ${!compact && html`<ul>${single.map((one) => html`<${Single} key=${one.members[0]} ...${shared} one=${one}
        state=${state(one)} />`)}</ul>`}
    </section>`}
  </div>`;
}

/** A click on an example keeps the rest of the address as it is at that moment; its link is for another tab. */
function openExample(event) {
  const link = event.target.closest("a.context");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey || !location.hash.startsWith("#/neuron/")) return;
  event.preventDefault();
  setQuery({ example: link.dataset.example });
}

/** All examples as one bar, cut into features. */
function Shares({ clustering, highlight }) {
  return html`<div class="shares" aria-hidden="true">
    ${clustering.features.map(
      ({ feature, members }) => html`<span
        key=${feature}
        data-feature=${feature}
        class=${highlight.feature !== null && highlight.feature !== feature ? "dim" : ""}
        style=${{ flexGrow: members.length, "--colour": featureColour(feature) }}
        title=${`Feature ${feature}: ${counted(members.length, "example")}`}
      />`,
    )}
  </div>`;
}

function Card({ neuron, clustering, scale, one, state, isPinned, selected, lit, isOwn, compact }) {
  const { feature, members, cohesion, central, peaks } = one;
  const n = compact ? 1 : N_CONTEXTS;
  const contexts = contextsOf(neuron, one, n, compact ? null : selected);
  return html`<article
    class=${`feature-card${state}`}
    data-feature=${feature}
    aria-label=${`Feature ${feature}`}
    style=${{ "--colour": featureColour(feature) }}
  >
    <header>
      ${!compact &&
      html`<button
        type="button"
        class="pin"
        aria-pressed=${isPinned}
        aria-label=${`Show only feature ${feature} in the charts`}
        title="Show only this one in the charts"
        onClick=${() => setQuery({ feature: isPinned ? null : feature })}
      ><span class="swatch" /></button>`}
      <h3>${compact && html`<span class="swatch" />`}<${Name} neuron=${neuron} feature=${feature} isOwn=${isOwn} /></h3>
      <span class="soft facts">
        <span data-fact="examples">${counted(members.length, "example")}</span>
        <span data-fact="share">${percent(members.length / neuron.examples.length)}</span>
        <span data-fact="cohesion"
          title="Mean similarity of its examples to each other"
          >cohesion ${cohesion === null ? "–" : decimal(cohesion)}</span>
        ${isOwn && html`<${Census} feature=${neuron.features[feature]} />`}
      </span>
      ${!isOwn && html`<${Origin} neuron=${neuron} origin=${one.origin} />`}
    </header>
    <${PeakChips} tokens=${peaks} total=${members.length} limit=${5} />
    <ul class="contexts">
      ${contexts.map(
        (i) => html`<li key=${i}>
          <${Context} neuron=${neuron} i=${i} height=${clustering.height} scale=${scale} isLit=${i === lit}
            isSelected=${i === selected}
            title=${i === central ? "The central example: the most like the others" : undefined} />
        </li>`,
      )}
    </ul>
  </article>`;
}

/** How often the atlas's feature comes in the corpus, where that was counted. */
function Census({ feature: { frequency, coverage } }) {
  if (frequency === null) return null;
  return html`<span data-fact="frequency" title="Tokens of the census that excite it">${often(frequency)}</span>
    ${coverage !== null && html`<span data-fact="coverage"
      title="Share of the neuron’s activation in the census that is at these tokens"
      >coverage ${decimal(100 * coverage)}%</span>`}`;
}

/** Which examples a card shows: the central one, then the strongest, if they have text; always the selected one. */
function contextsOf({ examples }, { members, central }, n, selected) {
  const first = [...new Set([...(central === null ? [] : [central]), ...members])];
  const readable = first.filter((i) => examples[i].tokens);
  const some = (readable.length ? readable : first).slice(0, n);
  return members.includes(selected) && !some.includes(selected) ? [...some, selected] : some;
}

function Single({ neuron, clustering, scale, one, state, selected, lit, isOwn }) {
  const [i] = one.members;
  return html`<li
    class=${`single-feature${state}`} data-feature=${one.feature} style=${{ "--colour": featureColour(one.feature) }}>
    <${Name} neuron=${neuron} feature=${one.feature} isOwn=${isOwn} short />
    <${Context} neuron=${neuron} i=${i} height=${clustering.height} scale=${scale} isLit=${i === lit}
      isSelected=${i === selected} />
  </li>`;
}

/** "Feature 2": a link to its page if it is the atlas's. */
function Name({ neuron: { layer, neuron }, feature, isOwn, short = false }) {
  const name = short ? feature : `Feature ${feature}`;
  if (!isOwn) return html`<span class="feature-name">${name}</span>`;
  return html`<a class="feature-name" href=${to.feature(layer, neuron, feature)}
    aria-label=${`Feature ${feature}`}>${name}</a>`;
}

/** Which of the atlas's features a feature of another cut is made of. */
function Origin({ neuron: { layer, neuron }, origin: { features, whole } }) {
  const rest = features.length - N_ORIGINS;
  const all = features.length === 1 ? "the atlas’s feature " : "joins the atlas’s features ";
  const says = whole ? all : "part of the atlas’s feature ";
  return html`<span class="soft">
    ${says}
    ${features.slice(0, N_ORIGINS).map(
      (feature, i) => html`${i > 0 && ", "}<a href=${to.feature(layer, neuron, feature)}>${feature}</a>`,
    )}
    ${rest > 0 && ` and ${rest} more`}
  </span>`;
}

function Context({ neuron, i, height, scale, isLit, isSelected, title }) {
  return html`<a
    class=${`context${isLit ? " lit" : ""}`}
    data-example=${i}
    href=${to.neuron(neuron.layer, neuron.neuron, { cut: height, example: i })}
    aria-current=${isSelected ? "true" : undefined}
    title=${title}
  ><${ContextLine} neuron=${neuron} example=${neuron.examples[i]} scale=${scale} /></a>`;
}
