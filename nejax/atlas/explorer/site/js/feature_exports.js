// A feature as something to keep: JSON, text, a picture, an entry for a bibliography.

import { useRef, useState } from "../vendor/hooks.js";
import { bibtex } from "./citation.js";
import { orderedExamples } from "./example_list.js";
import { download } from "./files.js";
import { decimal } from "./format.js";
import { html } from "./html.js";
import { featurePicture } from "./picture.js";
import { placeName, placeId } from "./place.js";
import { to } from "./route.js";
import { hasSides, isNegative, numberOf, sideOf } from "./sides.js";
import { mergedPeaks, peakName, visible, windowPieces } from "./tokens.js";

const LOOPBACK = /^(localhost|127\.|\[::1\])/;

/** The buttons. */
export function FeatureExports({ atlas, neuron, place, view }) {
  const dialog = useRef(null);
  const [problem, setProblem] = useState("");
  const name = `${atlas.model}-${placeId(place)}`.replace(/[^A-Za-z0-9]+/g, "-");
  const json = () =>
    download(`${name}.json`, JSON.stringify(featureJson(atlas, neuron, place), null, 1), "application/json");
  const text = () => download(`${name}.txt`, featureText(atlas, neuron, place, view));
  const picture = () =>
    featurePicture(atlas, neuron, place, view).then(
      (blob) => download(`${name}.png`, blob),
      (error) => setProblem(error.message),
    );
  return html`<button type="button" name="export-json" onClick=${json}
      title="All examples with tokens and activations">JSON</button>
    <button type="button" name="export-text" onClick=${text} title="The examples as lines of text">Text</button>
    <button type="button" name="export-png" onClick=${picture} title="A picture of the examples as shown">PNG</button>
    <button type="button" name="cite" onClick=${() => dialog.current.showModal()}
      title="An entry for a bibliography">Cite</button>
    ${problem && html`<p role="alert">${problem}</p>`}
    <${Citation} dialog=${dialog}
      text=${bibtex(atlas, { id: placeId(place), title: placeName(place), address: location.href })} />`;
}

function Citation({ dialog, text }) {
  const field = useRef(null);
  const [copied, setCopied] = useState(false);
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
      setCopied(true);
    } catch {
      field.current.select(); // where the browser refuses, the person can copy what is selected
    }
  };
  return html`<dialog class="citation" ref=${dialog} aria-labelledby="citation-title" onClose=${() => setCopied(false)}>
    <h2 id="citation-title">Cite</h2>
    <textarea readonly rows="16" aria-label="BibTeX" ref=${field} value=${text} />
    ${
      LOOPBACK.test(location.host) &&
      html`<p class="faint">This address is of your own machine. An exported site on a public server has one that lasts;
        the fingerprint names
      the atlas anywhere.</p>`
    }
    <form method="dialog" class="row">
      <button type="button" onClick=${copy}>Copy</button>
      <button>Close</button>
      <span role="status">${copied && "Copied."}</span>
    </form>
  </dialog>`;
}

/** Everything that is known of a feature, readable without this site. */
function featureJson(atlas, neuron, place) {
  const { central, similar, ...feature } = neuron.features[place.feature];
  return {
    format: "nejax feature",
    version: 1,
    address: new URL(to.feature(place.layer, place.neuron, place.feature), location.href).href,
    exported: new Date().toISOString(),
    atlas: { model: atlas.model, corpus: atlas.corpus, fingerprint: atlas.fingerprint, seq_len: atlas.seq_len },
    layer: place.layer,
    neuron: place.neuron,
    ...sided(place.neuron),
    feature: place.feature,
    ...feature,
    neuron_max_activation: neuron.measures.max_activation,
    similar: similar.map(([layer, other, index, similarity, sharesExample]) => ({
      layer,
      neuron: other,
      ...sided(other),
      feature: index,
      similarity,
      shares_example: sharesExample,
    })),
    examples: orderedExamples(neuron, place, "strength").map((i) => exampleJson(neuron, i, i === central)),
  };
}

/** Which neuron of the model, and which side of it, where neurons have two. */
const sided = (unit) => (hasSides() ? { number: numberOf(unit), side: sideOf(unit) } : {});

function exampleJson(neuron, i, isCentral) {
  const { sequence, position, document, activation, cohesion } = neuron.examples[i];
  const pieces = windowPieces(neuron, neuron.examples[i]);
  const tokens = pieces.map((piece) => ({
    ...piece,
    activation: Number(piece.activation.toPrecision(5)),
    fromPeak: undefined,
  }));
  return {
    sequence,
    position,
    document,
    activation,
    cohesion,
    central: isCentral,
    tokens: pieces.length ? tokens : null,
  };
}

/** The examples as shown, in lines that a person reads; the peak stands in double brackets. */
function featureText(atlas, neuron, place, view) {
  const { n_examples, cohesion, peak_tokens } = neuron.features[place.feature];
  const head = [
    placeName(place),
    `${atlas.model} on ${atlas.corpus}, atlas ${atlas.fingerprint}`,
    `${n_examples} of ${neuron.examples.length} examples${cohesion === null ? "" : `, cohesion ${decimal(cohesion)}`}`,
    `Peak tokens: ${mergedPeaks(peak_tokens).map(([text, count]) => `${peakName(text)} ${count}`).join(", ")}`,
    ...(isNegative(place.neuron) ? ["The negative side: activations are times −1"] : []),
    location.href,
  ];
  const lines = orderedExamples(neuron, place, view.order).map((i) => {
    const example = neuron.examples[i];
    const { activation, document, sequence, position } = example;
    const text = exampleText(windowPieces(neuron, example, view), view) || "(no text in this copy of the atlas)";
    return `${decimal(activation)}\t${visible(document)}, sequence ${sequence}, position ${position}\t${text}`;
  });
  return [...head, "", ...lines, ""].join("\n");
}

const exampleText = (pieces, { spaces }) =>
  pieces
    .map(({ text, fromPeak }) => (fromPeak === 0 ? `[[${visible(text, { spaces })}]]` : visible(text, { spaces })))
    .join("");
