// One neuron: its features as cards beside the dendrogram, the map and the histogram, which light up together.

import { useMemo } from "../../vendor/hooks.js";
import { ActivationHistogram } from "../activation_histogram.js";
import { BandChart } from "../band_chart.js";
import { useHeightInSheet } from "../chart.js";
import { useAtlas } from "../context.js";
import { CutNotice } from "../cut_notice.js";
import { clusteringAt, clusteringMethod, hasTree } from "../clustering.js";
import { useShards } from "../data.js";
import { Dendrogram } from "../dendrogram.js";
import { EmbeddingMap } from "../embedding_map.js";
import { ExampleDetail } from "../example_detail.js";
import { FeatureCards } from "../feature_cards.js";
import { neuronName } from "../format.js";
import { useHighlight } from "../highlight.js";
import { html } from "../html.js";
import { leafOrder, mergesUpTo } from "../linkage.js";
import { Measures } from "../measures.js";
import { neuronSentence, Notes } from "../neuron_summary.js";
import { Peek } from "../peek.js";
import { placeFrom } from "../place.js";
import { Problem, Waiting } from "../problem.js";
import { setQuery, to } from "../route.js";
import { activationName, hasSides, otherSide, sideOf, unitName, unitNoun } from "../sides.js";
import { StarButton } from "../star_button.js";
import { TokenLegend } from "../tokens.js";
import { useCut } from "../use_cut.js";

/** #/neuron/LAYER/NEURON?cut=0.41&example=7&feature=2 */
export function NeuronPage({ ids, query }) {
  const place = placeFrom(useAtlas(), ids.slice(0, 2));
  return place.problem
    ? html`<${Problem} error=${{ message: place.problem }} />`
    : html`<${Loaded} ...${place} query=${query} />`;
}

function Loaded({ layer, neuron, query }) {
  const { data, error, stale } = useShards([`neurons/${layer}/${neuron}`]);
  if (error && !stale) return html`<${Problem} error=${error} />`;
  return html`<div class=${`neuron-page${stale ? " stale" : ""}`}>
    <${Title} layer=${layer} neuron=${neuron} />
    ${data
      ? html`<${Neuron} key=${`${data[0].layer}/${data[0].neuron}`} neuron=${data[0]} query=${stale ? {} : query} />`
      : html`<${Waiting} />`}
  </div>`;
}

/** Which neuron, the way to its neighbours, and what can be done with it. */
function Title({ layer, neuron }) {
  const { d_mlp, n_neurons } = useAtlas();
  const neighbour = (step) => {
    const id = (layer * d_mlp + neuron + step + n_neurons) % n_neurons;
    return [Math.floor(id / d_mlp), id % d_mlp];
  };
  const link = (step, sign, rel) => {
    const place = neighbour(step);
    const name = `${rel === "prev" ? "Previous" : "Next"}: ${neuronName(...place)}`;
    return html`<a class="button" rel=${rel} href=${to.neuron(...place)} title=${name} aria-label=${name}>${sign}</a>`;
  };
  return html`<div class="title-row">
    <h1 tabindex="-1">${neuronName(layer, neuron)}</h1>
    <div class="tools">
      ${hasSides() && html`<${OtherSide} layer=${layer} neuron=${neuron} />`}
      ${link(-1, "←", "prev")} ${link(1, "→", "next")}
      <${StarButton} id=${`${layer}/${neuron}`} />
      <a class="button" href=${to.compare(`${layer}/${neuron}`)}>Compare</a>
    </div>
  </div>`;
}

/** The way to the other side of the neuron. */
function OtherSide({ layer, neuron }) {
  const other = otherSide(neuron);
  const title = `The ${sideOf(other)} side of this neuron`;
  return html`<a class="button" id="other-side" href=${to.neuron(layer, other)} title=${title}
    >Other side: ${unitName(other)}</a>`;
}

function Neuron({ neuron, query }) {
  const atlas = useAtlas();
  const { examples, merges, measures } = neuron;
  const isTree = hasTree(neuron);
  const method = clusteringMethod(atlas, neuron);
  const [asked, setCut, latestCut] = useCut(query);
  const cut = isTree && !(method.isCut && asked === neuron.height) ? asked : null;
  const made = cut === null ? null : mergesUpTo(merges, cut);
  const clustering = useMemo(() => clusteringAt(neuron, cut), [neuron, made]); // the cut only counts where it merges
  const order = useMemo(() => (isTree ? leafOrder(merges, examples.length) : examples.map((_, i) => i)), [neuron]);
  const selected = readIndex(query.example, examples.length);
  const pinned = readIndex(query.feature, clustering.features.length);
  const [highlight, handlers] = useHighlight(clustering.labels, pinned);
  const charts = useHeightInSheet();
  const scale = examples[0]?.activation ?? 0;
  const select = (example) => setQuery({ example });
  const linked = { neuron, clustering, highlight, selected, order };

  return html`<div class="neuron" data-cut=${cut ?? "atlas"} ...${handlers}>
    <p class="lead" id="neuron-sentence">${neuronSentence(atlas, neuron)}</p>
    <${Notes} atlas=${atlas} neuron=${neuron} />
    ${isTree && html`<${CutNotice} neuron=${neuron} clustering=${clustering} cut=${cut} method=${method}
      onReset=${() => setCut(null)} />`}
    <div class="neuron-columns">
      <section class="neuron-features" aria-labelledby="features-title">
        ${examples.length
          ? html`<div class="section-head">
                <h2 id="features-title">Features</h2>
                <${TokenLegend} scale=${scale} shade="activation" name=${activationName(neuron.neuron)} />
              </div>
              <${FeatureCards} ...${linked} scale=${scale} isOwn=${cut === null} cut=${cut} pinned=${pinned} />`
          : html`<h2 id="features-title">No features</h2>
              <p>
                This ${unitNoun()} is dead: no token of the corpus excites it, so there are no examples to embed or
                cluster.
              </p>`}
      </section>
      <aside class="neuron-charts" ref=${charts} aria-label="Charts">
        ${isTree && html`<${Dendrogram} ...${linked} cut=${cut} method=${method} onCut=${setCut} latestCut=${latestCut}
          onSelect=${select} />`}
        ${examples.length > 1 && html`<${EmbeddingMap} ...${linked} onSelect=${select} />`}
        ${examples.length > 1 && !isTree && html`<p
          class="soft">The distances between its examples are not finite: there is no dendrogram.</p>`}
        ${examples.length === 1 &&
        html`<p
          class="soft">One example has no distances to others: there is no dendrogram to cut and no map to draw.</p>`}
        ${examples.length > 1 && html`<${Peek} ...${linked} scale=${scale} />`}
        <${ActivationHistogram} ...${linked} />
        ${neuron.bands?.n_tokens.some((n) => n > 0) && html`<${BandChart} bands=${neuron.bands}
          overall=${measures.corpus_mean_distance} />`}
      </aside>
      <${Measures} atlas=${atlas} measures=${measures} clustering=${clustering} cut=${cut} />
    </div>
    ${selected !== null && html`<${ExampleDetail} ...${linked} scale=${scale} isOwn=${cut === null} />`}
  </div>`;
}

/** A whole number of an address below n, or null. */
const readIndex = (text, n) => (/^\d{1,6}$/.test(text ?? "") && Number(text) < n ? Number(text) : null);
