// Types of the API out of a running service: node generate.mjs http://127.0.0.1:8000
import { writeFileSync } from "node:fs";
import openapiTS, { astToString } from "openapi-typescript";
import ts from "typescript";

const blob = ts.factory.createTypeReferenceNode(ts.factory.createIdentifier("Blob"));
const types = await openapiTS(new URL("/openapi.json", process.argv[2]), {
  defaultNonNullable: false, // a field with a default may be left out
  transform: (schema) => (schema.format === "binary" ? blob : undefined), // recordings
});
writeFileSync("schema.d.ts", astToString(types));
