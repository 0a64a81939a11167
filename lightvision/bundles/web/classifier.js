// The network in ONNX Runtime, on one thread: more would need a server that isolates the page, and small networks
// gain nothing by them.

const RUNTIME = "./runtime/ort.wasm.bundle.min.mjs";
const MODEL = "model.onnx";
const FACTS = "bundle.json";
const ROUNDS = 7;
const ROUND = 10; // milliseconds that a round lasts at least, since browsers blur their clocks
const PATIENCE = 500; // milliseconds after which no further round begins

export async function loaded() {
  if (typeof WebAssembly !== "object") throw new Error("this browser has no WebAssembly, in which the network runs");
  const [facts, model] = await Promise.all([
    fetched(FACTS).then((answer) => answer.json()),
    fetched(MODEL).then((answer) => answer.arrayBuffer()),
  ]);
  if (model.byteLength !== facts.model.bytes) {
    throw new Error(`${MODEL} has ${model.byteLength} bytes, and not the ${facts.model.bytes} of ${FACTS}`);
  }
  const runtime = await import(RUNTIME).catch(() => {
    throw new Error("the folder runtime/ is not beside this page, or this browser is too old for it");
  });
  runtime.env.wasm.numThreads = 1;
  const session = await runtime.InferenceSession.create(model, { executionProviders: ["wasm"] });
  return new Classifier(facts, session, runtime);
}

async function fetched(name) {
  const answer = await fetch(name, { cache: "no-cache" }).catch(() => null);
  if (!answer?.ok) throw new Error(`${name} cannot be fetched: it has to lie beside this page, on the same server`);
  return answer;
}

class Classifier {
  constructor(facts, session, runtime) {
    this.facts = facts;
    this.session = session;
    this.runtime = runtime;
  }

  // a probability for each class, of RGB pixels of the network's size
  async probabilities(square) {
    return softmax(await this.logits(this.input(square)));
  }

  // of one picture, the median of a few rounds
  async milliseconds(square) {
    const input = this.input(square);
    const rounds = [];
    const start = performance.now();
    while (rounds.length < ROUNDS && (rounds.length === 0 || performance.now() - start < PATIENCE)) {
      const begin = performance.now();
      let calls = 0;
      while (calls === 0 || performance.now() - begin < ROUND) {
        await this.logits(input);
        calls++;
      }
      rounds.push((performance.now() - begin) / calls);
    }
    return { median: rounds.sort((a, b) => a - b)[rounds.length >> 1], rounds: rounds.length };
  }

  input(square) {
    const size = this.facts.image_size;
    return new this.runtime.Tensor("uint8", square, [1, size, size, 3]);
  }

  async logits(input) {
    const answer = await this.session.run({ [this.session.inputNames[0]]: input });
    return answer[this.session.outputNames[0]].data;
  }
}

function softmax(logits) {
  const largest = Math.max(...logits);
  const powers = Array.from(logits, (logit) => Math.exp(logit - largest));
  const sum = powers.reduce((total, power) => total + power, 0);
  return powers.map((power) => power / sum);
}
