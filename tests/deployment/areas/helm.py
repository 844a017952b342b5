"""The Helm chart: the linter, the rendered variants, and the refused values."""

import shutil

import tomllib
import yaml

from closewatch import ROOT, expect, expect_equal, run, status_of
from manifests import KUBERNETES_VERSIONS, check_configurations, check_drain_fits, named, parse, pod, sidecar, validate
from tools import HERE, fresh_directory, helm

CHART = ROOT / "deploy/helm/closewatch"
UPSTREAM = "config.upstream=ws://chat.default.svc:80"


def check(report):
    with report.check("helm: lint --strict"):
        run(helm(), "lint", "--strict", CHART, "--set", UPSTREAM)
    with report.check("helm: by default it is a Deployment with a Service"):
        resources = render(CHART, "--set", UPSTREAM)
        expect_equal(sorted(r["kind"] for r in resources), ["ConfigMap", "Deployment", "Service"], "what is rendered")
        check_standalone(resources)
    with report.check("helm: with a value for everything"):
        resources = render(CHART, "--values", HERE / "helm-values.yaml")
        check_standalone(resources)
        expect_equal(named(resources, "PodMonitor")["metadata"]["labels"]["release"], "prometheus", "the label")
        expect_equal(named(resources, "Service")["spec"]["type"], "LoadBalancer", "the Service's type")
    with report.check("helm: the sidecar in another chart equals the plain manifest"):
        check_sidecar(render(with_dependency()))
    refusals = {
        "no upstream": ([], "config.upstream is missing"),
        "another listen address": (["--set", f"{UPSTREAM},config.listen=0.0.0.0:1"], "config.listen"),
        "an unknown value": (["--set", f"{UPSTREAM},replicas=3"], "replicas"),
        "an unknown key of the configuration": (["--set", f"{UPSTREAM},config.timeout.idle=5s"], "timeout"),
        "a bad value in the configuration": (["--set", f"{UPSTREAM},config.log.max_per_second=0"], "max_per_second"),
        "a port that needs a capability": (["--set", f"{UPSTREAM},port=80"], "port"),
    }
    for what, (arguments, words) in refusals.items():
        with report.check(f"helm: refuses {what}"):
            status, _, errors = template(CHART, *arguments)
            expect(status != 0 and words in errors, f"ended with {status}: {errors}")
    with report.check("helm: passes `false`, which YAML 1.1 reads for `off`"):
        off = "config.timeouts.idle=false,config.privacy.path=false,config.on_server_loss.code=1012"
        check_configurations(render(CHART, "--set", f"{UPSTREAM},{off}"))
    with report.check("helm: has the version of the crate"):
        version = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]["version"]
        chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
        values = yaml.safe_load((CHART / "values.yaml").read_text())
        found = [chart["version"], chart["appVersion"], values["image"]["tag"]]
        expect_equal(found, [version] * 3, "version, appVersion, image.tag")


def render(chart, *arguments) -> list[dict]:
    status, output, errors = template(chart, *arguments)
    expect(status == 0, errors)
    return parse(output)


def template(chart, *arguments) -> tuple[int, str, str]:
    return status_of(helm(), "template", "example", chart, "--kube-version", KUBERNETES_VERSIONS[0], *arguments)


def check_standalone(resources: list[dict]):
    validate(resources)
    check_configurations(resources)
    deployment = named(resources, "Deployment")
    container = pod(deployment)["containers"][0]
    configuration = yaml.safe_load(named(resources, "ConfigMap")["data"]["config.yaml"])
    check_drain_fits(container, pod(deployment)["terminationGracePeriodSeconds"], configuration)
    selector = named(resources, "Service")["spec"]["selector"].items()
    labels = deployment["spec"]["template"]["metadata"]["labels"].items()
    expect(selector <= labels, f"the Service selects {selector}, the pods have {labels}")


def check_sidecar(resources: list[dict]):
    validate(resources)
    check_configurations(resources)
    plain = sidecar(named(parse((ROOT / "deploy/kubernetes/sidecar.yaml").read_text()), "Deployment"))
    found = sidecar(named(resources, "Deployment"))
    found.pop("imagePullPolicy")
    expect_equal(found, plain, "the sidecar")
    volume = pod(named(resources, "Deployment"))["volumes"][0]["configMap"]["name"]
    expect_equal(volume, named(resources, "ConfigMap")["metadata"]["name"], "the volume's ConfigMap")


def with_dependency():
    """Another chart that depends on this one."""
    chart = fresh_directory("chart")
    shutil.copytree(HERE / "chart", chart, dirs_exist_ok=True)
    shutil.copytree(CHART, chart / "charts/closewatch")
    return chart
