/** The worker that runs one model, so that the page stays responsive. Read `worker_channel.js` first. */

import { Decoder, openModel } from "glm-runtime/core";

import { storeFolder, verifyStored } from "./store_folder.js";
import { AddressSource, PickedSource } from "./source_files.js";
import { openStored } from "./stored_folders.js";
import { serve } from "./worker_channel.js";
import { openGraph } from "./web_graph.js";

const REPORT_MS = 50; // least time between two progress reports

/** @type {import("glm-runtime/core").Model} */ let model;
/** @type {Map<number, import("glm-runtime/core").Session>} */ const sessions = new Map();

/**
 * @typedef {object} OpenRequest
 * @property {string | readonly File[] | { storedId: string }} from
 * @property {"wasm" | "webgpu"} backend
 * @property {number} threads
 * @property {boolean} verify
 */

serve({
  /** @param {OpenRequest} request */
  async open({ from, backend, threads, verify }, { signal, report }) {
    const { folder, note, isVerified } = await openFolder({ from, verify }, signal, report);
    if (verify && !isVerified) await verifyStored(folder);
    signal.throwIfAborted();
    report({ isStarting: true });
    const open = (/** @type {any} */ entry) => openGraph({ folder, model: entry, backend, threads });
    model = await openModel(folder, open);
    const { manifest, defaults, chatTemplate } = model;
    return { label: folder.label, note, shape: manifest.model, defaults, hasChat: chatTemplate !== null };
  },

  /** @param {{ session: number, kind: "chat" | "generate", prompt: any, options: any }} request */
  async answer({ session: number, kind, prompt, options }, { signal, report }) {
    const session = sessions.get(number) ?? model.newSession();
    sessions.set(number, session);
    const settings = { ...options, signal };
    const pieces = kind === "chat" ? session.chat(prompt, settings) : session.generate(prompt, settings);
    report({ isRendered: true }); // not reached if the chat template never ends
    for await (const piece of pieces) report(piece);
  },

  /** @param {number} number */
  async endSession(number) {
    await sessions.get(number)?.release();
    sessions.delete(number);
  },

  async encode(/** @type {string} */ text) {
    return model.tokenizer.encode(text);
  },

  /** @param {{ messages: any, options: any }} request */
  async prepareChat({ messages, options }) {
    return model.prepareChat(messages, options).promptIds;
  },

  /** @param {readonly number[]} tokens */
  async readLogits(tokens, { signal }) {
    const decoder = new Decoder(model.graph, model.manifest.model);
    try {
      /** @type {Float32Array} */
      let logits = new Float32Array(0);
      for (let start = 0; start < tokens.length; start += model.graph.chunkTokens) {
        signal.throwIfAborted();
        logits = await decoder.append(tokens.slice(start, start + model.graph.chunkTokens));
      }
      return logits.slice();
    } finally {
      decoder.release();
    }
  },
});

/**
 * @param {Pick<OpenRequest, "from" | "verify">} request
 * @param {AbortSignal} signal
 * @param {(report: any) => void} report
 */
async function openFolder({ from, verify }, signal, report) {
  if (typeof from === "object" && "storedId" in from) {
    return { folder: await openStored(from.storedId), note: "", isVerified: false };
  }
  const source = typeof from === "string" ? new AddressSource(from) : new PickedSource(from);
  let last = -Infinity;
  return storeFolder({
    source,
    verify,
    signal,
    report: (progress) => {
      const now = performance.now();
      if (now - last < REPORT_MS && progress.doneBytes < progress.totalBytes) return;
      last = now;
      report(progress);
    },
  });
}
