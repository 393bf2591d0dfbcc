"""Asks a running webserver whether the platform behind it works, as after a deployment.

Only over HTTP, by what anybody with a browser could ask; it starts and changes nothing.
"""

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from ml_assets.changes import now

_TIMEOUT_S = 20

_QUESTION = """
{
  version
  workspaceOrError {
    ... on Workspace {
      locationEntries {
        name loadStatus
        locationOrLoadError {
          __typename
          ... on PythonError { message }
          ... on RepositoryLocation {
            repositories {
              schedules { name scheduleState { status } }
              sensors { name sensorState { status } }
            }
          }
        }
      }
    }
    ... on PythonError { message }
  }
  instance { daemonHealth { allDaemonStatuses { daemonType required healthy } } }
  assetNodes(group: {groupName: "%(group)s", repositoryName: "__repository__",
                     repositoryLocationName: "ml_assets"}) {
    assetKey { path }
    assetPartitionStatuses { ... on TimePartitionStatuses { ranges { endKey status } } }
  }
}
"""


class SmokeError(RuntimeError):
    """The webserver does not answer, or not as a Dagster webserver would."""


@dataclass(frozen=True)
class Line:
    """One finding.

    Attributes:
        state: `pass`, `warn` or `fail`.
        subject: What was looked at.
        found: What was seen, and what to do if it is not good.
    """

    state: str
    subject: str
    found: str


def ask(url: str, query: str, variables: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What a Dagster webserver answers to a GraphQL query.

    Raises:
        SmokeError: No answer, or no GraphQL.
    """
    if not url.startswith(("http://", "https://")):
        raise SmokeError(f"{url!r} is no address: expected one such as http://127.0.0.1:3000")
    request = urllib.request.Request(  # noqa: S310
        f"{url.rstrip('/')}/graphql",
        data=json.dumps({"query": query, "variables": variables or {}}).encode(),
        headers={"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response:  # noqa: S310
            answer = json.load(response)
    except urllib.error.HTTPError as error:
        login = " It asks for a login: run this behind the proxy." if error.code == 401 else ""
        raise SmokeError(f"{url} answers HTTP {error.code}.{login}") from error
    except (OSError, ValueError) as error:
        raise SmokeError(
            f"{url} does not answer as a Dagster webserver ({error}). Is it started, and is this "
            "its port?"
        ) from error
    if not isinstance(answer, dict) or not answer.get("data"):
        raise SmokeError(f"{url} refuses the question: {answer}")
    found: dict[str, Any] = answer["data"]
    return found


def smoke(url: str, group: str = "claims", *, expect_schedules: bool = True) -> list[Line]:
    """Look at the code location, the daemon, schedules and sensors, and the newest predictions.

    Which day is yesterday, the clock and time zone of this machine say.

    Args:
        url: The webserver's address.
        group: The use case.
        expect_schedules: Whether this environment has schedules and the new-data sensor.

    Raises:
        SmokeError: The webserver does not answer.
    """
    data = ask(url, _QUESTION % {"group": group})
    lines = [Line("pass", "webserver", f"Dagster {data['version']} answers")]
    repositories: list[dict[str, Any]] = []
    entries = data["workspaceOrError"].get("locationEntries") or []
    if not entries:
        told = data["workspaceOrError"].get("message", "it has none")
        lines.append(Line("fail", "code location", f"{told}. Look at workspace.yaml."))
    for entry in entries:
        place = entry["locationOrLoadError"] or {}
        if place.get("__typename") == "RepositoryLocation":
            repositories += place["repositories"]
            lines.append(Line("pass", "code location", f"{entry['name']} is loaded"))
        else:
            told = (place.get("message") or entry["loadStatus"]).strip().splitlines()[0]
            lines.append(
                Line("fail", "code location", f"{entry['name']}: {told}. See the server's log.")
            )
    lines.append(_daemon(data["instance"]["daemonHealth"]["allDaemonStatuses"]))
    for kind, expected in (("schedule", expect_schedules), ("sensor", expect_schedules)):
        lines.append(_instigators(kind, repositories, expected))
    lines.append(_predictions(data["assetNodes"], now().astimezone().date()))
    return lines


def _daemon(daemons: list[dict[str, Any]]) -> Line:
    silent = [each["daemonType"] for each in daemons if each["required"] and not each["healthy"]]
    if not silent:
        return Line("pass", "daemon", "its heart beats")
    return Line("fail", "daemon", f"no heartbeat of {', '.join(silent)}. Start `ml-assets daemon`.")


def _instigators(kind: str, repositories: list[dict[str, Any]], expected: bool) -> Line:
    found = [each for repository in repositories for each in repository[f"{kind}s"]]
    off = sorted(each["name"] for each in found if each[f"{kind}State"]["status"] != "RUNNING")
    if off:
        return Line("fail", f"{kind}s", f"off: {', '.join(off)}. Switch them on in the UI.")
    if not found and expected:
        return Line("fail", f"{kind}s", "none is there: is this the environment that you meant?")
    return Line("pass", f"{kind}s", f"{len(found)} running" if found else "none, as configured")


def _predictions(nodes: list[dict[str, Any]], today: date) -> Line:
    for node in nodes:
        if node["assetKey"]["path"][-1] == "predictions":
            ranges = node["assetPartitionStatuses"].get("ranges", [])
            days = [each["endKey"] for each in ranges if each["status"] == "MATERIALIZED"]
            if not days:
                return Line("warn", "predictions", "none yet: train a model, then score a day")
            newest, yesterday = max(days), (today - timedelta(days=1)).isoformat()
            if newest < yesterday:
                late = f"newest is {newest}, and {yesterday} is missing: look at the check "
                return Line("warn", "predictions", f"{late}predictions_on_time, and at failed runs")
            return Line("pass", "predictions", f"newest is {newest}")
    return Line("fail", "predictions", "the asset is not there: is this ml_assets?")
