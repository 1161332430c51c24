/** Opens a folder's graph with onnxruntime-node. It runs on the thread that asks, between turns of the event loop. */

import { join } from "node:path";

import "./no_telemetry.js";

import { InferenceSession, Tensor } from "onnxruntime-node";

import { FolderError, firstLine } from "./errors.js";
import { Graph, checkTensors } from "./graph.js";

const GRAPH_NAME = "model.onnx";
const CHUNK_TOKENS = 128; // as in Python

/**
 * Load a graph and its weights, which lie beside it.
 * @param {string} folder
 * @param {import("./manifest.js").ModelEntry} model
 * @param {number} [threads]
 * @returns {Promise<Graph>}
 * @throws {FolderError} onnxruntime refuses the graph, or a tensor is not as promised.
 */
export async function openGraph(folder, model, threads) {
  const session = await createSession(join(folder, GRAPH_NAME), threads);
  try {
    checkTensors(session, model);
  } catch (error) {
    await session.release(); // or Windows keeps the folder's files from being replaced
    throw error;
  }
  return new Graph(session, Tensor, { isInPlace: true, chunkTokens: CHUNK_TOKENS });
}

/**
 * @param {string} path
 * @param {number} [threads]
 */
async function createSession(path, threads) {
  try {
    return await InferenceSession.create(path, {
      executionProviders: ["cpu"],
      logSeverityLevel: 3,
      // Plans are kept for every shape of the inputs, and each step has another.
      enableMemPattern: false,
      ...(threads === undefined ? {} : { intraOpNumThreads: threads }),
    });
  } catch (error) {
    throw new FolderError(
      `onnxruntime-node refuses model.onnx (${firstLine(error)}); ` +
        "check the folder with `glm-run doctor` and upgrade onnxruntime-node.",
      error,
    );
  }
}
