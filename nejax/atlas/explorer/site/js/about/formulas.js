// The method's formulas, as MathML.

import { html } from "../html.js";

const block = (content, label) => html`<math display="block" tabindex="0" aria-label=${label}>${content}</math>`;
const i = (name) => html`<mi>${name}</mi>`;
const sub = (name, index) => html`<msub><mi>${name}</mi><mrow>${index}</mrow></msub>`;
const norm = (content) => html`<mrow><mo>|</mo>${content}<mo>|</mo></mrow>`;
const large = (content) => html`<mstyle displaystyle="true">${content}</mstyle>`;
const pair = html`<mi>i</mi><mo>,</mo><mi>j</mi>`;

/** e = x ⊙ w, and what its entries sum to. */
export const Embedding = () =>
  block(
    html`<mi>e</mi><mo>=</mo><mi>x</mi><mo>⊙</mo><mi>w</mi><mo>,</mo><mspace width="2em" />
      <munder><mo>∑</mo><mi>d</mi></munder>${sub("e", i("d"))}<mo>=</mo>
      <mtext>pre-activation</mtext><mo>−</mo><mtext>bias</mtext>`,
    "e equals x times w, element by element; the entries of e sum to the pre-activation minus the bias",
  );

/** The cosine distance. */
export const Distance = () =>
  block(
    html`${sub("d", pair)}<mo>=</mo><mn>1</mn><mo>−</mo>
      <mfrac>
        <mrow>${sub("e", i("i"))}<mo>·</mo>${sub("e", i("j"))}</mrow>
        <mrow>${norm(sub("e", i("i")))}<mspace width="0.15em" />${norm(sub("e", i("j")))}</mrow>
      </mfrac>`,
    "d i j equals one minus the cosine of e i and e j",
  );

/** Average linkage: the distance of two clusters. */
export const Linkage = () =>
  block(
    html`<mi>d</mi><mo stretchy="false">(</mo><mi>A</mi><mo>,</mo><mi>B</mi><mo stretchy="false">)</mo><mo>=</mo>
      <mfrac><mn>1</mn><mrow>${norm(i("A"))}<mspace width="0.15em" />${norm(i("B"))}</mrow></mfrac>
      <munder><mo>∑</mo><mrow><mi>i</mi><mo>∈</mo><mi>A</mi></mrow></munder>
      <munder><mo>∑</mo><mrow><mi>j</mi><mo>∈</mo><mi>B</mi></mrow></munder>${sub("d", pair)}`,
    "the distance of clusters A and B is the mean of d i j over i in A and j in B",
  );

/** The mean distance over all pairs. */
export const MeanDistance = () =>
  block(
    html`<mtext>mean distance</mtext><mo>=</mo>
      <mfrac>
        <mn>2</mn>
        <mrow><mi>n</mi><mo stretchy="false">(</mo><mi>n</mi><mo>−</mo><mn>1</mn><mo stretchy="false">)</mo></mrow>
      </mfrac>
      <munder><mo>∑</mo><mrow><mi>i</mi><mo>${"<"}</mo><mi>j</mi></mrow></munder>${sub("d", pair)}`,
    "the mean distance is the mean of d i j over all pairs of examples",
  );

/** The cohesion of an example in its feature. */
export const Cohesion = () =>
  block(
    html`<msub><mtext>cohesion</mtext><mi>i</mi></msub><mo>=</mo>
      <mfrac><mn>1</mn><mrow>${norm(i("F"))}<mo>−</mo><mn>1</mn></mrow></mfrac>
      <munder><mo>∑</mo><mrow><mi>j</mi><mo>∈</mo><mi>F</mi><mo>,</mo><mi>j</mi><mo>≠</mo><mi>i</mi></mrow></munder>
      <mo stretchy="false">(</mo><mn>1</mn><mo>−</mo>${sub("d", pair)}<mo stretchy="false">)</mo>`,
    "the cohesion of example i is the mean of one minus d i j over the other examples j of its feature F",
  );

/** The importance of a token before the peak. */
export const Importance = () =>
  block(
    html`<msub><mtext>importance</mtext><mi>k</mi></msub><mo>=</mo>
      <mfrac>
        ${large(html`<mi>a</mi><mo>−</mo>${sub("a", i("k"))}`)}
        ${large(html`<mi>a</mi><mo>−</mo>${sub("a", html`<mn>0</mn>`)}`)}
      </mfrac>
      <mo>,</mo><mspace width="1em" /><mtext>kept between 0 and 1</mtext>`,
    "the importance of token k is a minus a k, over a minus a 0, kept between 0 and 1",
  );

/** The frequency and the coverage of a feature. */
export const FrequencyAndCoverage = () =>
  block(
    html`<mtext>frequency</mtext><mo>=</mo>
      <mfrac><mrow>${norm(sub("T", i("F")))}</mrow><mrow>${norm(i("T"))}</mrow></mfrac>
      <mo>,</mo><mspace width="2em" />
      <mtext>coverage</mtext><mo>=</mo>
      <mfrac>
        ${large(html`<munder><mo>∑</mo><mrow><mi>t</mi><mo>∈</mo>${sub("T", i("F"))}</mrow></munder>${sub("a", i("t"))}`)}
        ${large(html`<munder><mo>∑</mo><mrow><mi>t</mi><mo>∈</mo><mi>T</mi><mo>,</mo>${sub("a", i("t"))}<mo
          >${">"}</mo><mn>0</mn></mrow></munder>${sub("a", i("t"))}`)}
      </mfrac>`,
    "frequency is the number of tokens of feature F over that of all tokens; coverage is the sum of the activation at " +
      "these over the sum of all that is above 0",
  );

/** The silhouette of an example. */
export const Silhouette = () =>
  block(
    html`${sub("s", i("i"))}<mo>=</mo>
      <mfrac>
        <mrow>${sub("b", i("i"))}<mo>−</mo>${sub("a", i("i"))}</mrow>
        <mrow>
          <mi>max</mi><mo stretchy="false">(</mo>${sub("a", i("i"))}<mo>,</mo>${sub("b", i("i"))}<mo
            stretchy="false">)</mo>
        </mrow>
      </mfrac>`,
    "the silhouette of example i is b i minus a i, over the larger of the two",
  );
