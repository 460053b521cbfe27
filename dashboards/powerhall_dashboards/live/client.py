"""The client of Grafana's HTTP API, through the grafana-api package.

Only endpoints that Grafana 10 to 13 share, and data sources by uid (numeric ids are off by default from 13 on). The
package's own methods are used where it has them; moving to grafana-client means changing this module alone.
"""

import argparse
import ipaddress
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import urlsplit

import requests
from grafana_api.grafana_api import GrafanaClientError, GrafanaException
from grafana_api.grafana_face import GrafanaFace

from powerhall.runtime.errors import ConfigError, PowerhallError, Rejected, Retryable
from powerhall.runtime.settings import Secret

__all__ = ["Grafana", "open_grafana"]

Json = dict[str, Any]
T = TypeVar("T")


class Grafana:
    """A Grafana server; every error names it and its message, never the token."""

    def __init__(self, url: str, token: Secret, *, ca_file: str | None = None, allow_http: bool = False) -> None:
        parts = urlsplit(url if "://" in url else f"https://{url}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError.field("grafana", "--url", url, "must be https://HOST[:PORT][/PATH]")
        if parts.username or parts.password:
            raise ConfigError("grafana: --url: must not hold a password; use --token-file")
        if parts.scheme == "http" and not allow_http and not _is_local(parts.hostname):
            raise ConfigError(f"grafana: --url: {url}: sends the token in the clear; allow it by --allow-http")
        self.name = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
        self._face = GrafanaFace(
            token.read_token(),
            host=parts.hostname,
            port=parts.port,
            url_path_prefix=f"{parts.path.strip('/')}/" if parts.path.strip("/") else "",
            protocol=parts.scheme,
            verify=ca_file or True,
            timeout=30.0,
        )

    def version(self) -> str:
        """Return the server's version."""
        return str(self._call(lambda: self._face.api.GET("/health"), "read its health").get("version", "unknown"))

    def put_folder(self, uid: str, title: str) -> tuple[str, bool]:
        """Create the folder where none has this uid or title; return its uid, and whether it was created.

        Alert rules that are provisioned by files make their folder by title, under a uid of Grafana's choice.
        """
        if self._found(lambda: self._face.folder.get_folder(uid), "read the folder") is not None:
            return uid, False
        for folder in self._call(lambda: self._face.api.GET("/folders?limit=1000"), "list the folders"):
            if folder.get("title") == title:
                return str(folder["uid"]), False
        self._call(lambda: self._face.folder.create_folder(title, uid), "make the folder")
        return uid, True

    def datasource(self, uid: str) -> Json | None:
        """Return the data source of this uid; None where there is none."""
        return self._found(lambda: self._face.api.GET(f"/datasources/uid/{uid}"), "read the data source")

    def put_datasource(self, spec: Json) -> None:
        """Create the data source, or replace the one of the same uid."""
        if self.datasource(spec["uid"]) is None:
            self._call(lambda: self._face.datasource.create_datasource(spec), "make the data source")
        else:
            self._call(
                lambda: self._face.api.PUT(f"/datasources/uid/{spec['uid']}", json=spec), "write the data source"
            )

    def datasource_health(self, uid: str) -> tuple[bool, str]:
        """Return whether Grafana reaches the store through this data source, and its message."""
        try:
            answer = self._face.api.GET(f"/datasources/uid/{uid}/health")
        except GrafanaClientError as error:
            if error.status_code in (400, 404):
                return False, _message(error)
            raise self._refusal(error, "read the data source's health") from None
        except (GrafanaException, requests.RequestException) as error:
            raise self._refusal(error, "read the data source's health") from None
        return answer.get("status") == "OK", str(answer.get("message", ""))

    def dashboard(self, uid: str) -> Json | None:
        """Return the dashboard's JSON as it is stored; None where there is none."""
        found = self._found(lambda: self._face.dashboard.get_dashboard(uid), "read the dashboard")
        return None if found is None else dict(found["dashboard"])

    def put_dashboard(self, data: Json, folder_uid: str, message: str) -> None:
        """Write a dashboard into a folder, over the one of the same uid."""
        body = {"dashboard": data, "folderUid": folder_uid, "overwrite": True, "message": message}
        self._call(lambda: self._face.dashboard.update_dashboard(body), f"write the dashboard {data['uid']}")

    def ask(self, queries: list[Json], start_s: float, end_s: float) -> Json:
        """Run queries as a panel does; return the results by refId."""
        body = {"queries": queries, "from": str(round(start_s * 1000)), "to": str(round(end_s * 1000))}
        answer = self._call(lambda: self._face.api.POST("/ds/query", json=body), "run a query", inside=(400,))
        return dict(answer.get("results", {}))

    def _found(self, call: Callable[[], T], what: str) -> T | None:
        try:
            return call()
        except GrafanaClientError as error:
            if error.status_code == 404:
                return None
            raise self._refusal(error, what) from None
        except (GrafanaException, requests.RequestException) as error:
            raise self._refusal(error, what) from None

    def _call(self, call: Callable[[], T], what: str, inside: tuple[int, ...] = ()) -> T:
        """Run a call; an answer of a status in `inside` is itself the result."""
        try:
            return call()
        except GrafanaException as error:
            if error.status_code in inside and isinstance(error.response, dict) and "results" in error.response:
                return error.response  # type: ignore[return-value]
            raise self._refusal(error, what) from None
        except requests.RequestException as error:
            raise self._refusal(error, what) from None

    def _refusal(self, error: Exception, what: str) -> PowerhallError:
        if isinstance(error, requests.exceptions.SSLError):
            return ConfigError(f"{self.name}: cannot {what}: TLS: {error}")
        if not isinstance(error, GrafanaException):
            return Retryable(f"{self.name}: cannot {what}: {type(error).__name__}: does not answer")
        text, status = _message(error), int(error.status_code)
        if status == 401:
            return ConfigError(f"{self.name}: cannot {what}: the token is refused (401): {text}")
        if status == 403:
            return ConfigError(f"{self.name}: cannot {what}: the token has too few rights (403): {text}")
        if status >= 500 or status == 429:
            return Retryable(f"{self.name}: cannot {what}: {status}: {text}")
        return Rejected(f"{self.name}: cannot {what}: {status}: {text}")


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _message(error: GrafanaException) -> str:
    response = error.response
    text = response.get("message", "") if isinstance(response, dict) else str(response)
    return " ".join(str(text or error).split())[:300]


def open_grafana(options: argparse.Namespace) -> Grafana:
    """Open the Grafana of a command's options."""
    return Grafana(options.url, Secret(options.token_file), ca_file=options.ca_file, allow_http=options.allow_http)
