// The whole tour with a generated client: node build/tour.js URL KEY ALICE-1.wav ALICE-2.wav OTHER.wav
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import createClient, { type Middleware } from "openapi-fetch";
import type { components, paths } from "./schema.js";

const [url, key, ...files] = process.argv.slice(2) as [string, string, string, string, string];
const [alice1, alice2, other] = files.map((file) => new Blob([readFileSync(file)])) as [Blob, Blob, Blob];

const sayso = createClient<paths>({ baseUrl: url });
const authorize: Middleware = {
  onRequest({ request }) {
    request.headers.set("Authorization", `Bearer ${key}`);
    return request;
  },
};
sayso.use(authorize);

// A recording as the raw body; openapi-fetch would write it as JSON.
const raw = { headers: { "Content-Type": "audio/wav" }, bodySerializer: (body: unknown) => body as Blob };

function answer<T>(result: { data?: T; error?: components["schemas"]["Problem"] }): T {
  if (result.data === undefined) throw new Error(`${result.error?.code}: ${result.error?.detail}`);
  return result.data;
}

const speaker = answer(await sayso.POST("/v1/speakers", {
  body: { id: "alice-ts", name: "Alice", groups: ["typescript"], metadata: { shift: 2 } },
}));
assert.equal(speaker.status, "enrolling");

const path = { speaker_id: "alice-ts" };
const added = answer(await sayso.POST("/v1/speakers/{speaker_id}/enrollments", { params: { path }, body: alice1, ...raw }));
assert.equal(added.status, "enrolled");

const accepted = answer(await sayso.POST("/v1/speakers/{speaker_id}/verify", { params: { path }, body: alice2, ...raw }));
assert.equal(accepted.decision, "accept");
console.log(accepted.decision, accepted.score, accepted.llr, accepted.threshold.llr);

const rejected = answer(await sayso.POST("/v1/speakers/{speaker_id}/verify", { params: { path }, body: other, ...raw }));
assert.equal(rejected.decision, "reject");

const query = { group: "typescript", top_k: 3 };
const found = answer(await sayso.POST("/v1/identify", { params: { query }, body: alice2, ...raw }));
assert.equal(found.candidates[0]?.speaker_id, "alice-ts");

const form = new FormData();
form.append("audio", alice1);
form.append("audio", alice2);
const same = answer(await sayso.POST("/v1/compare", {
  body: { audio: [alice1, alice2] },
  bodySerializer: () => form,
}));
assert.equal(same.decision, "accept");

const embedding = answer(await sayso.POST("/v1/embeddings", { body: alice1, ...raw }));
assert.equal(embedding.embedding.length, 512);

const models = answer(await sayso.GET("/v1/models"));
assert.ok(models.items.some((model) => model.default));

const changed = answer(await sayso.PATCH("/v1/speakers/{speaker_id}", { params: { path }, body: { groups: ["typescript", "night"] } }));
assert.deepEqual(changed.groups, ["night", "typescript"]);
const page = answer(await sayso.GET("/v1/speakers", { params: { query: { group: "night" } } }));
assert.deepEqual(page.items.map((one) => one.id), ["alice-ts"]);
const enrollments = answer(await sayso.GET("/v1/speakers/{speaker_id}/enrollments", { params: { path } }));
assert.equal(enrollments.items.length, 1);

const again = await sayso.POST("/v1/speakers", { body: { id: "alice-ts" } });
assert.equal(again.error?.code, "speaker_exists");
assert.equal(again.response.status, 409);

const deleted = await sayso.DELETE("/v1/speakers/{speaker_id}", { params: { path } });
assert.equal(deleted.response.status, 204);
console.log("the tour is done");
