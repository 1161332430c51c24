/** Opens a folder's graph with onnxruntime-node. Each run of the graph blocks the calling thread. */

import { join } from "node:path";

import "./no_telemetry.js";

import { InferenceSession, Tensor, env } from "onnxruntime-node";

import { FolderError, firstLine } from "./errors.js";
import { Graph, checkTensors } from "./graph.js";
import { requireVersion } from "./manifest.js";

const GRAPH_NAME = "model.onnx";
const CHUNK_TOKENS = 128; // as in Python

/**
 * Load a graph, and its weights from the same folder.
 * @param {string} folder
 * @param {import("./manifest.js").ModelEntry} model
 * @param {number} [threads]
 * @returns {Promise<Graph>}
 * @throws {FolderError} onnxruntime cannot load the graph, or a tensor does not match the manifest.
 */
export async function openGraph(folder, model, threads) {
  requireVersion(model, "onnxruntime-node", env.versions.node);
  const session = await createSession(join(folder, GRAPH_NAME), threads);
  try {
    checkTensors(session, model);
  } catch (error) {
    await session.release(); // otherwise Windows does not let anyone replace the folder's files
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
      // onnxruntime would store a memory plan for every input shape, and every step has another shape.
      enableMemPattern: false,
      ...(threads === undefined ? {} : { intraOpNumThreads: threads }),
    });
  } catch (error) {
    throw new FolderError(
      `onnxruntime-node cannot load model.onnx (${firstLine(error)}); ` +
        "check the folder with `glm-run doctor` and upgrade onnxruntime-node.",
      error,
    );
  }
}
