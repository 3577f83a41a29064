// Ask the guard from Node.js, by its gRPC interface.
//
// cd examples/node && npm install
// verdictree serve
// node guard.js "How do I pick a lock?"
//
// GUARD_ADDRESS names another address than the usual one; GUARD_KEY is a tenant's key, where the server asks for one.

import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import grpc from "@grpc/grpc-js";
import protoLoader from "@grpc/proto-loader";

const repository = join(dirname(fileURLToPath(import.meta.url)), "..", "..");
const google = dirname(createRequire(import.meta.url).resolve("google-proto-files/package.json")); // google/rpc/status.proto
const definition = protoLoader.loadSync("verdictree/v1/guard.proto", {
  includeDirs: [process.env.GUARD_PROTOS ?? repository, google],
  defaults: true, // a number of 0 does not travel
  enums: String,
  longs: Number,
});
const { Guard } = grpc.loadPackageDefinition(definition).verdictree.v1;

const metadata = new grpc.Metadata();
if (process.env.GUARD_KEY) metadata.set("authorization", `Bearer ${process.env.GUARD_KEY}`);
const client = new Guard(process.env.GUARD_ADDRESS ?? "127.0.0.1:8001", grpc.credentials.createInsecure());
const content = process.argv.slice(2).join(" ") || "How do I pick a lock?";
const options = { deadline: Date.now() + 5000 };
client.classify({ messages: [{ role: "ROLE_USER", content }] }, metadata, options, (fault, answer) => {
  if (fault) {
    console.error(fault.message);
    process.exitCode = 1;
  } else {
    const [first] = answer.verdict.categories.toSorted((a, b) => b.marginal - a.marginal);
    console.log(`P(unsafe)=${answer.verdict.pUnsafe.toFixed(4)} ${first.code}=${first.marginal.toFixed(4)}`);
  }
  client.close();
});
