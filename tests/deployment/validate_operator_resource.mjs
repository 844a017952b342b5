// Validates a resource of the Prometheus operator, as JSON on standard input, by the schema of its CRD.
import { PodMonitor } from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/PodMonitor";
import { text } from "node:stream/consumers";

const kinds = { PodMonitor };
const resource = JSON.parse(await text(process.stdin));
const Kind = kinds[resource.kind];
if (!Kind) throw new Error(`no schema for ${resource.kind}`);
new Kind(resource).validate();
