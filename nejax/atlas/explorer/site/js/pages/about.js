// The method in a page, for someone who has never heard of it.

import {
  Cohesion, Distance, Embedding, FrequencyAndCoverage, Importance, Linkage, MeanDistance, Silhouette,
} from "../about/formulas.js";
import { HowMade } from "../about/made.js";
import { PageGuide } from "../about/pages_guide.js";
import { html } from "../html.js";
import { hasSides } from "../sides.js";

const PAPER = "https://arxiv.org/abs/2411.08166";
const paper = (text) => html`<a href=${PAPER} rel="noreferrer">${text}</a>`;

export function About() {
  return html`<article class="prose">
    <h1 tabindex="-1">About: what a neuron really does</h1>
    <${Problem} /> <${Method} /> <${Measures} /> <${Beyond} />
    <h2 id="words">Words</h2>
    <${Words} />
    <h2 id="pages">How to read the pages</h2>
    <${PageGuide} />
    <${Limits} />
    <h2 id="this-atlas">How this atlas was made</h2>
    <${HowMade} />
    <${Sources} />
  </article>`;
}

const Problem = () => html`
  <p class="lead">
    A neuron of a language model often answers to several unrelated things. The texts that excite it most, listed
    together, are a jumble. These pages take the jumble apart: they show each neuron as the handful of features it
    consists of.
  </p>
  <p>
    The method is that
    of ${paper(html`Foote (2024), <cite>Tackling Polysemanticity with Neuron Embeddings</cite>, arXiv 2411.08166`)}.
    Its idea: two texts may excite a neuron equally and for different reasons, and the reasons can be compared.
  </p>
`;

const Method = () => html`
  <h2 id="method">The method</h2>
  <h3>1. What the neuron read, and what it was looking for</h3>
  <p>
    A neuron of an MLP multiplies its input <math><mi>x</mi></math> with its input weights <math><mi>w</mi></math>,
    entry by entry, adds everything up, and passes the sum on. The sum tells how well the input fits, but no longer
    why. The <strong>neuron embedding</strong> of a text is the product before it is added up, at the token where the
    neuron's activation is highest in that text, its <strong>peak</strong>:
  </p>
  <${Embedding} />
  <p>
    Entries that are large name the directions of the input that excited the neuron; what the neuron ignores is near
    zero.
  </p>
  <h3>2. How far apart two texts are</h3>
  <p>
    Two texts that excite the neuron for the same reason have embeddings that point the same way. Their distance is
    the cosine distance: 0 for the same direction, 1 for nothing in common.
  </p>
  <${Distance} />
  <h3>3. Clusters are features</h3>
  <p>
    The neuron's <strong>examples</strong>, the texts in which its activation is high, are clustered by these
    distances. With average linkage, each example starts alone; the two nearest clusters are joined, again and again,
    where the distance of two clusters is the mean over all pairs between them:
  </p>
  <${Linkage} />
  <p>
    The tree of all these joins is the dendrogram. Cut at a height, it falls into clusters: the
    neuron's <strong>features</strong>. The height is a choice, not a truth, so the neuron page lets you drag it.
    (Connected components, k-means and spectral clustering can be used instead; the last section says what this atlas
    was made with.)
  </p>
`;

const Measures = () => html`
  <h2 id="measures">The measures</h2>
  <p>
    <strong>Mean distance</strong> says how polysemantic a neuron is without any clustering: the mean over all pairs
    of its <math><mi>n</mi></math> examples. Near 0, they all excite it for one reason.
  </p>
  <${MeanDistance} />
  <p>
    <strong>Distance within</strong> is the same mean over those pairs that are in the same feature, <strong>distance
    between</strong> over those that are not, and <strong>max distance</strong> is the largest of all. A value with no
    pair behind it is left out, shown as a dash; it is never 0.
  </p>
  <p>
    <strong>Cohesion</strong> says how alike the examples of a feature <math><mi>F</mi></math> are. A feature's own is
    the mean over its examples, and its <strong>central example</strong> is the one with the highest.
  </p>
  <${Cohesion} />
  <p>
    <strong>Silhouette</strong> says whether the features are apart:
    with <math><msub><mi>a</mi><mi>i</mi></msub></math> the mean distance of an example to the others of its feature,
    and <math><msub><mi>b</mi><mi>i</mi></msub></math> that to the nearest other feature, it is near 1 for clear
    features, near 0 for a cut through a continuum.
  </p>
  <${Silhouette} />
`;

const Beyond = () => html`
  <h2 id="beyond">Beyond the peaks</h2>
  <p>An atlas may hold two things more; the last section says what is in this one.</p>
  <p>
    <strong>Token importance</strong> says what in the text before the peak a feature needs: it is the part of the
    activation <math><mi>a</mi></math> that is lost when the token <math><mi>k</mi></math> positions before the peak
    is ablated, of what is lost without the peak's own token. It is measured in the most central examples of each
    feature; the others are left plain.
  </p>
  <${Importance} />
  <p>
    A <strong>census</strong> reads the corpus once more, all of it or a sample, and asks of every
    token that can be a peak, the set <math><mi>T</mi></math>, which feature of a neuron it excites: where the
    neuron fires, the one whose direction, the mean of its examples' embeddings, is nearest, if that is near enough.
    With <math><msub><mi>T</mi><mi>F</mi></msub></math> the tokens of a feature <math><mi>F</mi></math>,
    its <strong>frequency</strong> is their share of all tokens, and its <strong>coverage</strong> is the share of
    the neuron's activation that is at them. A neuron's coverage is the sum over its features: what they leave
    unexplained is the rest.
  </p>
  <${FrequencyAndCoverage} />
  <p>
    <strong>Mean distance by activation</strong> is the mean distance over all pairs of tokens at which the activation
    is in one band, between two parts of the neuron's maximum. Where it rises towards low activation, a neuron that has
    one meaning at its peaks has many below. <strong>Mean distance everywhere</strong> is the same over all bands
    together.
  </p>
`;

const Words = () => html`<dl>
  <dt>Neuron</dt>
  <dd>A unit of an MLP's hidden layer, named by its layer and its number in it, both from 0.</dd>
  <dt>Activation</dt>
  <dd>The neuron's value at a token, after its non-linearity.</dd>
  ${hasSides() &&
  html`<dt>Side</dt>
    <dd>
      A gated neuron's activation has extremes of both signs, and they answer to different things: each sign is shown as
      a neuron of its own, with its own examples and features. On the negative side, named 17 −, every activation is
      times −1: it is high where the neuron's activation is lowest.
    </dd>`}
  <dt>Sequence</dt>
  <dd>A window of tokens cut from a document, which the model read by itself.</dd>
  <dt>Example</dt>
  <dd>Of a neuron: a sequence that excites it, and the position of the peak in it.</dd>
  <dt>Near-duplicate</dt>
  <dd>
    An example whose eight tokens up to the peak are those of other examples of the neuron. Text repeats itself, so only
    a few are kept; each neuron's page says how many were left out.
  </dd>
  <dt>Peak</dt>
  <dd>
    The token at which the neuron's activation is highest in that sequence. The first token of a sequence is never one.
  </dd>
  <dt>Feature</dt>
  <dd>A cluster of a neuron's examples. Feature 0 is the largest.</dd>
  <dt>Similar features</dt>
  <dd>Features of other neurons whose central examples have nearly the same input, by cosine.</dd>
  <dt>Dead neuron</dt>
  <dd>One without an example in this corpus.</dd>
</dl>`;

const Limits = () => html`
  <h2 id="limits">What this cannot tell</h2>
  <ul>
    <li>
      Features are made of the strongest examples only. What a neuron does at low activation, where it spends most of
      its time, is at most counted by a census.
    </li>
    <li>A feature is what the corpus holds: another corpus shows other features, and none that it lacks.</li>
    <li>
      The number of features follows the height of the cut. Compare mean distances between neurons rather than numbers
      of features.
    </li>
    <li>An embedding shows what the neuron read, not what its output does to the model's next token.</li>
    <li>
      The map of a neuron shows two dimensions of many; the share it shows is written beside it. Trust the
      dendrogram's distances.
    </li>
    <li>LayerNorm can be folded into the weights or not. The activations are equal, the embeddings are not.</li>
  </ul>
`;

const Sources = () => html`
  <h2 id="sources">Sources and licences</h2>
  <p>Alex Foote, <cite>Tackling Polysemanticity with Neuron Embeddings</cite>, 2024. ${paper("arXiv 2411.08166")}.</p>
  <p>
    nejax is under the Apache License 2.0. These pages use two libraries, which come with them, so that nothing is
    loaded from elsewhere: <a href="vendor/preact.LICENSE">Preact 11 (MIT)</a> and <a href="vendor/htm.LICENSE">htm 3
    (Apache 2.0)</a>. The colours of features are those of Okabe and Ito (2008); the colour scale is cividis, by
    Nunez, Anderton and Renslow (2018).
  </p>
`;
