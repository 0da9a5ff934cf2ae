"""The alerts and the dashboard in conf/, held against what wsguard reports: promtool runs their cases, and a Prometheus
with the rules as they are shipped scrapes guards that are in trouble of every kind, beside one that is well."""

import contextlib
import http.client
import json
import os
import pathlib
import re
import resource
import signal
import socket
import subprocess
import tempfile
import threading
import time
import unittest
import urllib.parse

import promql_parser as promql
import yaml
from rig import ACCEPT, HERE, REQUEST, Backend, Guard, Program, connect, echo, event, frame, reset, until, upgrade

CONF = HERE.parents[1] / "conf"
RULES = CONF / "prometheus" / "alerts.yml"
CASES = CONF / "prometheus" / "alerts_test.yml"
DASHBOARD = CONF / "grafana" / "wsguard.json"
ALERTS = {rule["alert"]: rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]}

# What no guard comes to here, so that the cases of promtool alone show it: faults of wsguard, and a loop of restarts.
NOT_HERE = {"WsguardCounterDrift", "WsguardPanics", "WsguardRestarts"}
WAVE = 1.2
# Half of them suffice. Their number is what guards come to; how long a wave takes is up to the machine.
WAVES = 50
NO_LIMITS = '[limits]\nper_ip = "off"\nper_ip_rate = "off"\n'
SWITCHED = (
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    f"Sec-WebSocket-Accept: {ACCEPT}\r\n\r\n"
).encode()


class Files(unittest.TestCase):
    """What can be said without a guard."""

    def test_promtool_accepts_the_rules(self):
        self.promtool("check", "rules", RULES)

    def test_every_case_comes_out(self):
        self.promtool("test", "rules", CASES)

    def test_every_alert_has_a_case_that_fires_beside_one_that_does_not(self):
        fires, early, labels = {}, set(), {}
        for case in yaml.safe_load(CASES.read_text())["tests"]:
            there = {label(promql.parse(series["series"]), "instance") for series in case["input_series"]}
            for asked in case["promql_expr_test"]:
                alert = label(promql.parse(asked["expr"]), "alertname")
                samples = [promql.parse(sample["labels"]) for sample in asked["exp_samples"]]
                self.assertEqual(alert, case["name"])
                for sample in samples:
                    labels.setdefault(alert, set()).update(matcher.name for matcher in sample.matchers.matchers)
                if samples:
                    silent = there - {label(sample, "instance") for sample in samples}
                    fires.setdefault(alert, set()).update(silent)
                else:
                    early.add(alert)
        self.assertEqual(set(ALERTS), set(fires), "alerts of alerts.yml, and those that fire in alerts_test.yml")
        self.assertEqual([], [alert for alert, silent in fires.items() if "under" not in silent], "none is just below")
        self.assertEqual(set(), {alert for alert, rule in ALERTS.items() if "for" in rule} - early, "may fire at once")
        for alert, rule in ALERTS.items():
            told = set(re.findall(r"\$labels\.(\w+)", " ".join(rule["annotations"].values())))
            self.assertEqual(set(), told - labels[alert], f"{alert} tells of labels that it does not have")

    def test_every_alert_says_what_to_do_in_words_that_are_explained(self):
        documents = [CONF / "wsguard.toml", CONF.parent / "README.md", *CONF.glob("*.md")]
        explained = "".join(document.read_text() for document in documents)
        known = set(re.findall(r"\w+", explained))
        for alert, rule in ALERTS.items():
            with self.subTest(alert):
                self.assertIn(rule["labels"]["severity"], ("critical", "warning"))
                self.assertEqual({"summary", "description"}, set(rule["annotations"]))
                words = re.findall(r"`(\w+)`", rule["annotations"]["description"])
                self.assertEqual([], [word for word in words if word not in known])
                others = re.findall(r"\bWsguard\w+", rule["annotations"]["description"])
                self.assertEqual([], [other for other in others if other not in ALERTS])

    def test_no_alert_tells_a_number_that_can_be_misread(self):
        """`humanize` makes 113.4m of 0.1134: 113 million, to someone who was woken by it."""
        clear = {'printf "%.0f"', "humanizePercentage", "humanizeDuration"}
        whole = {"WsguardRestarts", "WsguardCounterDrift"}
        for alert, rule in ALERTS.items():
            with self.subTest(alert):
                told = re.findall(r"{{\s*\$value\s*(?:\|\s*(.*?)\s*)?}}", " ".join(rule["annotations"].values()))
                self.assertEqual(set(), set(told) - clear - ({""} if alert in whole else set()))
                if 'printf "%.0f"' in told:
                    self.assertRegex(rule["expr"], r"increase\(|predict_linear\(", "rounded, it may say 0")

    def test_no_panel_has_a_unit_that_can_be_misread(self):
        """Grafana's `Bps` makes 100 mB/s of a tenth of a byte."""
        units = set(found(json.loads(DASHBOARD.read_text())["panels"], "unit"))
        clear = {"none", "short", "cps", "s", "percentunit", "bytes", "binBps", "bool_yes_no", "dateTimeFromNow"}
        self.assertEqual(set(), units - clear)

    def test_the_dashboard_is_one_that_grafana_takes_anywhere(self):
        board = json.loads(DASHBOARD.read_text())
        self.assertEqual(json.dumps(board, indent=2, ensure_ascii=False) + "\n", DASHBOARD.read_text())
        self.assertIsNone(board["id"])
        panels = board["panels"]
        self.assertEqual(len(panels), len({panel["id"] for panel in panels}), "two panels have one id")
        taken = set()
        for panel in panels:
            at = panel["gridPos"]
            squares = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
            self.assertFalse(taken & squares, f"{panel['title']} lies on another panel")
            self.assertLessEqual(at["x"] + at["w"], 24, panel["title"])
            taken |= squares
            if panel["type"] != "row":
                self.assertTrue(panel["description"] and panel["fieldConfig"]["defaults"]["unit"], panel["title"])
        variables = {variable["name"] for variable in board["templating"]["list"]}
        used = set(re.findall(r"\$\{?(\w+)", DASHBOARD.read_text()))
        self.assertEqual(variables | {"__rate_interval", "__all"}, used)
        # Who imports it has sources of other ids.
        sources = {source["uid"] for source in found(board, "datasource") if source["type"] == "prometheus"}
        self.assertEqual({"${datasource}"}, sources)

    def promtool(self, *arguments):
        done = subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True)
        self.assertEqual(0, done.returncode, done.stdout + done.stderr)


# What is done to each guard, wave by wave, a little more than a scrape apart; `held` keeps what is to stay open.


def is_well(guard, held):
    talker = held.enter_context(upgrade(guard.port))
    while True:
        echo(talker, b"still here")
        sock = upgrade(guard.port, "127.0.0.2")
        echo(sock, b"for a moment")
        reset(sock)
        with connect(guard.port) as leaves:
            leaves.sendall(b"GET /")
        yield


def fills_up(guard, held):
    for _ in range(4):
        for _ in range(2):
            held.enter_context(upgrade(guard.port))
        yield
    while True:
        answer(guard)
        yield


def is_at_its_ceiling(guard, held):
    for number in range(8):
        held.enter_context(upgrade(guard.port, f"127.0.0.{number + 1}"))
    while True:
        answer(guard)
        yield


def holds_silent_sockets(guard, held):
    while True:
        for number in range(4):
            held.enter_context(connect(guard.port, f"127.0.0.{number + 1}"))
        held.enter_context(connect(guard.port, "127.0.0.4"))
        yield


def is_scanned(guard, held):
    held.enter_context(upgrade(guard.port))
    while True:
        for _ in range(200):
            answer(guard)
        yield


def observes(guard, held):
    held.enter_context(upgrade(guard.port))
    while True:
        reset(upgrade(guard.port))
        yield


def stands_behind_a_proxy(guard, held):
    while True:
        answer(guard, REQUEST[:-2] + b"X-Forwarded-For: 192.0.2.1\r\n\r\n")
        yield


def loses_clients(guard, held):
    yield
    for _ in range(150):
        held.enter_context(upgrade(guard.port))
    yield


def is_talked_to_death(guard, held):
    while True:
        for _ in range(100):
            with upgrade(guard.port) as sock:
                sock.sendall(frame(bytes(32)))
                # One that waits for the end without an answer waits for half a second.
                assert b"message too big" in sock.recv(4096)
        yield


def is_asked(guard, held):
    while True:
        answer(guard)
        yield


def waits_for_its_server(guard, held):
    while True:
        for _ in range(2):
            threading.Thread(target=answer, args=(guard,), daemon=True).start()
        yield


def gets_a_mistake(guard, held):
    guard.file.write_text(guard.file.read_text() + "\nper_Ip = 1\n")
    yield


def is_not_read(guard, held):
    guard.stop_reading()
    while True:
        for _ in range(1000):
            answer(guard, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        yield


def meets_many_addresses(guard, held):
    for subnet in range(1, 100):
        for number in range(1, 12):
            reset(upgrade(guard.port, f"127.1.{subnet}.{number}"))
        yield


def runs_out_of_descriptors(guard, held):
    yield
    before = resource.prlimit(guard.pid, resource.RLIMIT_NOFILE)
    descriptors = len(os.listdir(f"/proc/{guard.pid}/fd"))
    while True:
        # Enough for a scrape; then not even for that, while many knock; then enough for whoever asks what happened.
        resource.prlimit(guard.pid, resource.RLIMIT_NOFILE, (descriptors + 3, before[1]))
        yield
        yield
        resource.prlimit(guard.pid, resource.RLIMIT_NOFILE, (descriptors, before[1]))
        with contextlib.ExitStack() as knocking:
            for _ in range(500):
                knocking.enter_context(connect(guard.port))
            for _ in range(8):
                yield
        resource.prlimit(guard.pid, resource.RLIMIT_NOFILE, before)
        yield
        yield


def drains(guard, held):
    held.enter_context(upgrade(guard.port))
    late = held.enter_context(connect(guard.port))
    late.sendall(REQUEST[:-2])
    time.sleep(0.1)
    guard.process.send_signal(signal.SIGTERM)
    guard.find(lambda line: event(line, "draining"), "draining")
    late.sendall(REQUEST[-2:])
    assert b" 503 " in late.recv(4096)
    yield


def is_killed(guard, held):
    yield
    yield
    guard.process.kill()
    yield


class Scene:
    """A guard, what is done to it, and the alerts that it leads to."""

    def __init__(self, does, *alerts, before=None, workers=1, listener="", server="", rest=""):
        self.does, self.alerts, self.before = does, {f"Wsguard{alert}" for alert in alerts}, before
        self.options = {"listener": listener, "server": f"workers = {workers}\n{server}", "rest": rest}


SCENES = [
    Scene(is_well),
    Scene(
        fills_up,
        "ZoneFillsUp",
        "ZoneNearlyFull",
        "ZoneFull",
        "OneClientHoldsMuch",
        "SilentHoldBudget",
        rest=NO_LIMITS + "connections = 8",
    ),
    Scene(is_at_its_ceiling, "ProcessNearlyFull", "ProcessFull", server="max_connections = 8"),
    Scene(holds_silent_sockets, "PendingFull", listener="max_pending = 2\nmax_pending_per_ip = 1"),
    Scene(is_scanned, "RefusalsJump", rest="[limits]\nper_ip = 1"),
    Scene(observes, rest='[limits]\nmode = "observe"\nper_ip = 1'),
    Scene(stands_behind_a_proxy, "ForwardingUntrusted"),
    Scene(loses_clients, "Ghosts", rest=NO_LIMITS + '[limits.messages]\nping = "1s"\npong_timeout = "100ms"'),
    Scene(is_talked_to_death, "MessageLimits", rest=NO_LIMITS + '[limits.messages]\nmax_size = "16B"'),
    Scene(is_asked, "ServerFails", "UpstreamFails", before="closed"),
    Scene(
        is_asked,
        "ServerFails",
        "UpstreamFails",
        rest='[upstream.nobody]\nservers = ["nowhere.invalid:80"]\n[[route]]\nupstream = "nobody"',
    ),
    Scene(is_asked, "UpstreamFails", before=(0, b"?\r\n\r\n")),
    Scene(is_asked, "UpstreamFails", before=(9, b""), rest='[limits.timeouts]\nupgrade = "200ms"'),
    Scene(waits_for_its_server, "HandshakesSlow", before=(3, SWITCHED)),
    Scene(gets_a_mistake, "ReloadRefused"),
    Scene(is_not_read, "LogLinesLost", "RefusalsJump", rest='[log]\nsample = "off"'),
    Scene(
        meets_many_addresses,
        "ClientTableFull",
        server="max_connections = 8\ntable_size = 8",
        rest='[limits]\nper_ip_rate = "1/h"',
    ),
    Scene(
        runs_out_of_descriptors,
        "DescriptorsNearlyOut",
        "AcceptErrors",
        "Down",
        workers=8,
        listener='max_pending_per_ip = "off"',
    ),
    Scene(drains, server='drain_timeout = "5m"'),
    Scene(is_killed, "Down"),
]


class Trouble(unittest.TestCase):
    """What Prometheus makes of guards that it scrapes once a second. An alert that is pending has its condition met,
    and waits for its `for` alone, which promtool's cases hold."""

    @classmethod
    def setUpClass(cls):
        # A machine without a name server must not wait for one.
        os.environ["RES_OPTIONS"] = "timeout:1 attempts:1"
        held = contextlib.ExitStack()
        cls.addClassCleanup(held.close)
        backend = held.enter_context(Backend()).port
        guards = []
        for scene in SCENES:
            if scene.before is None:
                port = backend
            elif scene.before == "closed":
                port = held.enter_context(closed_port())
            else:
                port = held.enter_context(server(*scene.before))
            guards.append(held.enter_context(Guard(port, **scene.options)))
        cls.prometheus = held.enter_context(Prometheus(guard.admin for guard in guards))
        cls.scenes = {guard.admin: scene for guard, scene in zip(guards, SCENES)}
        cls.seen = {guard.admin: {} for guard in guards}
        last = set()
        until("every guard is scraped", lambda: len(cls.prometheus.asks("up == 1")) == len(guards), 20)
        waves = [scene.does(guard, held) for guard, scene in zip(guards, SCENES)]
        for _ in range(WAVES):
            for wave in waves:
                next(wave, None)
            time.sleep(WAVE)
            now = set()
            for alert in cls.prometheus.alerts():
                admin, name = of = alert["labels"]["instance"], alert["labels"]["alertname"]
                now.add(of)
                # One that is not expected may be a scrape that this machine was too busy for; what is true stays true.
                if name in cls.scenes[admin].alerts or of in last:
                    cls.seen[admin][name] = alert["annotations"]
            unsure = {(admin, name) for admin, name in now - last if name not in cls.scenes[admin].alerts}
            last = now
            if not unsure and all(scene.alerts <= set(cls.seen[admin]) for admin, scene in cls.scenes.items()):
                break
        for wave in waves:
            wave.close()
        cls.series = cls.prometheus.series()

    def test_each_trouble_is_told_and_nothing_else(self):
        for admin, scene in self.scenes.items():
            with self.subTest(scene.does.__name__):
                self.assertEqual(scene.alerts, set(self.seen[admin]))
                for alert, words in self.seen[admin].items():
                    self.assertIn(admin, words["summary"], alert)
                    self.assertNotRegex(" ".join(words.values()), "<no value>|error expanding|{{")
                    self.assertNotRegex(" ".join(words.values()), r"\d[munpkMGT]\b")
        self.assertEqual(set(ALERTS) - NOT_HERE, set().union(*(scene.alerts for scene in SCENES)))

    def test_every_name_of_the_rules_is_one_that_wsguard_reports(self):
        for alert, rule in ALERTS.items():
            with self.subTest(alert):
                self.assertEqual([], unknown(promql.parse(rule["expr"]), self.series))

    def test_every_panel_shows_what_wsguard_reports(self):
        for panel in json.loads(DASHBOARD.read_text())["panels"]:
            for target in panel.get("targets", []):
                with self.subTest(panel["title"], target=target["refId"]):
                    asked = filled_in(target["expr"])
                    self.assertEqual([], unknown(promql.parse(asked), self.series))
                    lines = self.prometheus.asks(asked)
                    self.assertTrue(lines, "nothing is shown")
                    for name in re.findall(r"{{(\w+)}}", target["legendFormat"]):
                        self.assertIn(name, lines[0]["metric"])

    def test_promtool_has_nothing_to_say_of_the_metrics_but_for_one_name(self):
        """That one is older than this test, and relied on: "counter" is what it is about, and no type."""
        for admin, scene in self.scenes.items():
            # Neither may be able to answer any more.
            if scene.does in (is_killed, runs_out_of_descriptors):
                continue
            with self.subTest(scene.does.__name__):
                checked = subprocess.run(
                    ["promtool", "check", "metrics"], input=scrape(admin), capture_output=True, timeout=30
                )
                complaints = (checked.stdout + checked.stderr).decode().splitlines()
                allowed = "wsguard_counter_drift metric name should not include type 'counter'"
                self.assertEqual([], [complaint for complaint in complaints if complaint != allowed])

    def test_every_choice_of_the_dashboard_is_one_that_wsguard_reports(self):
        for variable in json.loads(DASHBOARD.read_text())["templating"]["list"]:
            if variable["type"] == "query":
                self.assertEqual(variable["definition"], variable["query"]["query"])
                selector, name = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"]).groups()
                self.assertEqual([], unknown(promql.parse(f"sum by ({name}) ({filled_in(selector)})"), self.series))


def answer(guard, request=REQUEST):
    """What a request hears, at once or never; who asked is gone after it."""
    with connect(guard.port) as sock:
        with contextlib.suppress(ConnectionError):
            sock.sendall(request)
            return sock.recv(4096)


def scrape(admin):
    """What /metrics says to anybody who asks."""
    host, port = admin.rsplit(":", 1)
    with contextlib.closing(http.client.HTTPConnection(host, int(port), timeout=10)) as connection:
        connection.request("GET", "/metrics")
        return connection.getresponse().read()


def filled_in(asked):
    """An expression of the dashboard, with everything chosen."""
    return asked.replace("$__rate_interval", "1m").replace("$instance", ".*").replace("$zone", ".*")


def unknown(node, series):
    """What of an expression does not exist in `series`: metrics, labels, values that are compared with."""
    if node is None or isinstance(node, (promql.NumberLiteral, promql.StringLiteral)):
        return []
    if isinstance(node, promql.VectorSelector):
        of = [labels for labels in series if labels["__name__"] == node.name]
        if not of:
            return [node.name]
        complaints = []
        for matcher in node.matchers.matchers:
            values = {labels[matcher.name] for labels in of if matcher.name in labels}
            if not values:
                complaints.append(f"{node.name}: {matcher.name}")
            is_pattern = matcher.op in (promql.MatchOp.Re, promql.MatchOp.NotRe)
            for value in matcher.value.split("|") if is_pattern else [matcher.value]:
                pattern = value if is_pattern else re.escape(value)
                if not any(re.fullmatch(pattern, there) for there in values):
                    complaints.append(f"{node.name}: {matcher.name} {value}")
        return complaints
    if isinstance(node, promql.MatrixSelector):
        return unknown(node.vector_selector, series)
    if isinstance(node, promql.Call):
        below, named = node.args, []
    elif isinstance(node, promql.AggregateExpr):
        below, named = [node.expr, node.param], node.modifier.labels if node.modifier else []
    elif isinstance(node, promql.BinaryExpr):
        matching = node.modifier.matching if node.modifier else None
        below, named = [node.lhs, node.rhs], matching.labels if matching else []
    else:
        below, named = [node.expr], []
    there = {name for labels in series if labels["__name__"] in set(metrics(node)) for name in labels}
    complaints = [f"grouped by {name}" for name in named if name not in there]
    return complaints + [complaint for child in below for complaint in unknown(child, series)]


def metrics(node):
    """The metrics of an expression."""
    if isinstance(node, promql.VectorSelector):
        yield node.name
    for name in ("vector_selector", "expr", "param", "lhs", "rhs"):
        if isinstance(child := getattr(node, name, None), promql.Expr):
            yield from metrics(child)
    for child in getattr(node, "args", []):
        yield from metrics(child)


def label(selector, name):
    """The value of one label; None where it is not asked for."""
    return next((matcher.value for matcher in selector.matchers.matchers if matcher.name == name), None)


def found(node, key):
    """Everything under that key, at any depth."""
    if isinstance(node, dict):
        if key in node:
            yield node[key]
        node = list(node.values())
    if isinstance(node, list):
        for child in node:
            yield from found(child, key)


@contextlib.contextmanager
def server(seconds, says):
    """A server that answers each request after so many seconds with the same bytes, and waits for the end."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answers(sock):
            with sock, contextlib.suppress(OSError):
                sock.recv(4096)
                time.sleep(seconds)
                sock.sendall(says)
                sock.recv(4096)

        def accepts():
            with contextlib.suppress(OSError):
                while True:
                    threading.Thread(target=answers, args=(listening.accept()[0],), daemon=True).start()

        threading.Thread(target=accepts, daemon=True).start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def closed_port():
    """A port that nobody listens on, nor can."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


def free_port():
    """A port that was free a moment ago."""
    with closed_port() as port:
        return port


class Prometheus(Program):
    """A Prometheus with the rules, that scrapes and evaluates once a second."""

    def __init__(self, targets):
        self._folder = tempfile.TemporaryDirectory(prefix="wsguard-clients-")
        file = pathlib.Path(self._folder.name) / "prometheus.yml"
        file.write_text(
            yaml.safe_dump(
                {
                    "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
                    "rule_files": [str(RULES)],
                    "scrape_configs": [{"job_name": "wsguard", "static_configs": [{"targets": list(targets)}]}],
                }
            )
        )
        self._port = free_port()
        super().__init__(
            "prometheus",
            f"--config.file={file}",
            f"--storage.tsdb.path={self._folder.name}/data",
            f"--web.listen-address=127.0.0.1:{self._port}",
        )
        try:
            self.find(lambda line: "ready to receive web requests" in line, "its start", 30)
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_):
        super().__exit__()
        self._folder.cleanup()

    def asks(self, expression):
        """Series of now, each with its labels under `metric`."""
        return self._get("query", query=expression)["result"]

    def series(self):
        """The labels of everything that was ever scraped from wsguard."""
        return self._get("series", **{"match[]": '{job="wsguard"}'})

    def alerts(self):
        return self._get("alerts")["alerts"]

    def _get(self, what, **parameters):
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)) as connection:
            connection.request("GET", f"/api/v1/{what}?{urllib.parse.urlencode(parameters)}")
            said = json.loads(connection.getresponse().read())
        assert said["status"] == "success", said
        return said["data"]


if __name__ == "__main__":
    unittest.main(verbosity=2)
