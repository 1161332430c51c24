/** Reads an exported folder from this computer's disk. */

import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { readFile, readdir, realpath, stat } from "node:fs/promises";
import { dirname, join } from "node:path";

import { FolderError } from "./errors.js";

/** @typedef {import("./text_files.js").Folder} Folder */

/** @implements {Folder} */
export class DiskFolder {
  /** @param {string} path */
  constructor(path) {
    this.label = path;
  }

  /** @throws {FolderError} the path is not a folder. */
  async listNames() {
    try {
      return await readdir(this.label);
    } catch (error) {
      throw new FolderError(`${this.label} is not a folder; pass a folder that glm-export wrote.`, error);
    }
  }

  /**
   * @param {string} name
   * @returns {Promise<import("./text_files.js").Found>}
   */
  async find(name) {
    const path = join(this.label, name);
    const found = await stat(path).catch(() => null);
    if (!found?.isFile()) return { problem: "is missing" };
    if (dirname(await realpath(path)) !== (await realpath(this.label))) {
      return { problem: "is a link to a file outside of the folder" };
    }
    return { sizeBytes: found.size };
  }

  /**
   * @param {string} name
   * @returns {Promise<Uint8Array | null>}
   */
  async readBytes(name) {
    try {
      const path = join(this.label, name);
      if (!(await stat(path)).isFile()) throw new Error("it is not a regular file"); // a pipe would be waited for
      return await readFile(path);
    } catch (error) {
      if (error instanceof Error && "code" in error && error.code === "ENOENT") return null;
      throw error;
    }
  }

  /** @param {string} name */
  async hash(name) {
    const digest = createHash("sha256");
    const stream = createReadStream(join(this.label, name), { highWaterMark: 1 << 20 });
    for await (const chunk of stream) digest.update(chunk);
    return digest.digest("hex");
  }
}
