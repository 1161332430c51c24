/** The endpoints of the server, as Swagger UI shows them. It asks for the API key as the chat page does. */

import DOMPurify from "dompurify";

import { showProblem } from "./elements.js";
import { askForKey, prepareKey } from "./key_view.js";
import { Connection } from "./server_connection.js";

// Swagger UI sets HTML, which it has sanitized, as text. The page's policy admits only what a policy returns.
const trusted = /** @type {any} */ (window).trustedTypes;
trusted?.createPolicy("default", { createHTML: (/** @type {string} */ text) => DOMPurify.sanitize(text) });

async function start() {
  const connection = new Connection(askForKey);
  try {
    const spec = await (await connection.send("openapi.json")).json();
    /** @type {any} */ (window).SwaggerUIBundle({
      spec,
      dom_id: "#docs",
      deepLinking: true,
      validatorUrl: null, // Swagger's own server, which nothing is sent to
      requestInterceptor: (/** @type {{ headers: object }} */ request) => {
        request.headers = { ...connection.headers, ...request.headers };
        return request;
      },
    });
  } catch (error) {
    showProblem(error instanceof Error ? error.message : String(error));
  }
}

prepareKey();
await start();
