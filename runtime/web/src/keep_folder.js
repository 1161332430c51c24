/** Brings a folder into this browser: fetched, or copied from the disk, and kept where there is room. */

import { FolderError, MANIFEST_NAME, readManifest } from "glm-runtime/core";

import { StorageError } from "./errors.js";
import { DiskPart, MemoryPart, fetchFiles } from "./fetch_files.js";
import { requireFit } from "./memory_limits.js";
import { UnreachableError } from "./source_files.js";
import {
  FileFolder,
  canStore,
  deleteStored,
  findFile,
  identify,
  listStored,
  makePlace,
  markWhole,
  openStored,
  readChunks,
  writeFile,
} from "./stored_folders.js";
import { formatBytes } from "./units.js";

const LARGEST_MANIFEST_BYTES = 2 ** 26; // the 9B's has 0.2 MB

/** @typedef {import("./source_files.js").Source} Source */
/** @typedef {import("glm-runtime/core").FileEntry} FileEntry */

/** @typedef {import("./fetch_files.js").Request} Request */

/**
 * Fetch what is not here yet.
 * @param {Request} request
 * @returns {Promise<{ folder: FileFolder, note: string }>}  a note says what the user should know
 * @throws {FolderError} a file is missing, or not what the manifest promises.
 * @throws {import("glm-runtime/core").FormatVersionError} a newer glm-export wrote it.
 * @throws {StorageError} there is no room.
 * @throws {import("./errors.js").TooLargeError} no page could hold the model.
 */
export async function keepFolder(request) {
  const { source, signal } = request;
  let bytes;
  try {
    bytes = await readManifestBytes(source, signal);
  } catch (error) {
    const stored = error instanceof UnreachableError ? await findStored(source.key) : null;
    if (!stored) throw error;
    return { folder: await openStored(stored.id), note: "no connection: the copy kept in this browser answers" };
  }
  const files = await checkManifest(source.label, bytes);
  const place = await preparePlace(source, bytes, files);
  const wanted = [...files].sort(([, left], [, right]) => left.sizeBytes - right.sizeBytes);
  if (!place) return holdFiles(request, bytes, wanted);
  await fetchFiles(request, wanted, (name, entry) => DiskPart.open(place, name, entry));
  await writeFile(place, MANIFEST_NAME, bytes);
  await markWhole(place, source);
  if (source.isLasting) await deleteOthers(source.key, identify(bytes));
  return { folder: await openStored(identify(bytes)), note: "" };
}

/** @param {string} key */
async function findStored(key) {
  return (await listStored()).find((one) => one.isWhole && one.key === key);
}

/**
 * @param {Source} source
 * @param {AbortSignal} [signal]
 */
async function readManifestBytes(source, signal) {
  const { stream } = await source.open(MANIFEST_NAME, 0, signal);
  /** @type {BlobPart[]} */
  const chunks = [];
  let size = 0;
  for await (const chunk of readChunks(stream)) {
    chunks.push(/** @type {BlobPart} */ (chunk));
    size += chunk.length;
    if (size > LARGEST_MANIFEST_BYTES) {
      throw new FolderError(`${source.label}/${MANIFEST_NAME} is endless; give the folder that glm-export wrote.`);
    }
  }
  return new Uint8Array(await new Blob(chunks).arrayBuffer());
}

/**
 * Refuse what cannot run before its weights are fetched.
 * @param {string} label
 * @param {Uint8Array} bytes
 */
async function checkManifest(label, bytes) {
  const alone = new FileFolder(label, [MANIFEST_NAME], async () => toBlob(bytes));
  const { files } = await readManifest(alone);
  let total = 0;
  for (const { sizeBytes } of files.values()) total += sizeBytes;
  requireFit(JSON.parse(new TextDecoder().decode(bytes)), total);
  return files;
}

/**
 * Where to keep it; `null` where the browser keeps nothing for this page.
 * @param {Source} source
 * @param {Uint8Array} manifest
 * @param {ReadonlyMap<string, FileEntry>} files
 */
async function preparePlace(source, manifest, files) {
  if (!(await canStore())) return null;
  const place = await makePlace(identify(manifest));
  let needed = 0;
  for (const [name, { sizeBytes }] of files) {
    const found = (await findFile(place, name)) ?? (await findFile(place, `${name}.part`));
    needed += Math.max(0, sizeBytes - (found?.size ?? 0));
  }
  const { quota = Infinity, usage = 0 } = await navigator.storage.estimate();
  if (needed <= quota - usage) return place;
  throw new StorageError(
    `${source.label} needs ${formatBytes(needed)} where this browser has ${formatBytes(Math.max(0, quota - usage))} ` +
      "for this page; delete what is kept, or free disk space.",
  );
}

/**
 * Without a place to keep files they are held in memory, as long as the page is open.
 * @param {Request} request
 * @param {Uint8Array} manifest
 * @param {[string, FileEntry][]} wanted
 */
async function holdFiles(request, manifest, wanted) {
  /** @type {Map<string, Blob>} */
  const held = new Map([[MANIFEST_NAME, toBlob(manifest)]]);
  await fetchFiles(request, wanted, async (name) => new MemoryPart((whole) => held.set(name, whole)));
  const folder = new FileFolder(request.source.label, [...held.keys()], async (name) => held.get(name) ?? null);
  return { folder, note: "this browser keeps no files for this page: it will not work offline" };
}

/** @param {Uint8Array} bytes */
function toBlob(bytes) {
  return new Blob([/** @type {BlobPart} */ (bytes)]);
}

/**
 * What came from the same address before goes.
 * @param {string} key
 * @param {string} id
 */
async function deleteOthers(key, id) {
  for (const one of await listStored()) if (one.key === key && one.id !== id) await deleteStored(one.id);
}
