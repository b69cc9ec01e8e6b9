# What a person types. Everything is installed into .venv, once; nothing else on the machine is touched.
#
#     make demo     hello.wav: a sentence in the built-in voice
#     make test     the tests
#     make check    style, and the types of the wheel as somebody else would install it
#     make bench    speed, cold start and memory on this machine, beside other projects: make bench ARGS="--only sampler,ar"
#     make codecs   codecs beside one another: make codecs ARGS="one=runs/codec other=runs/other --protocol …"
#     make clean    away with everything that these have made

TEXT = I have never said this before, and yet you can hear me say it.
# Processes that share the tests, each of one thread (tests/conftest.py).
WORKERS = 2

PYTHON = $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2> /dev/null && echo $$p && break; done)
BIN = .venv/bin
PIP = $(BIN)/python -m pip --disable-pip-version-check

.PHONY: demo test check bench codecs clean
.NOTPARALLEL:

demo: .venv/installed
	$(BIN)/mynah say "$(TEXT)" --out hello.wav

test: .venv/installed-dev
	$(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile $(ARGS)

check: .venv/installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	@rm -rf build  # what an earlier wheel left there would get into the next
	@outside=$$(mktemp -d) && trap 'rm -rf build "$$outside"' EXIT && cache="$(CURDIR)/.mypy_cache" && bin="$(abspath $(BIN))" \
	&& $(PIP) wheel -qq --no-deps --no-build-isolation -w "$$outside" . \
	&& $(PIP) install -qq --no-deps --target "$$outside/site" "$$outside"/*.whl \
	&& cp pyproject.toml "$$outside" && cd "$$outside/site" \
	&& "$$bin/mypy" --config-file ../pyproject.toml --cache-dir "$$cache" -p tts

bench: .venv/installed-peers
	$(BIN)/python benchmarks/bench.py $(ARGS)

codecs: .venv/installed-dev
	$(BIN)/python benchmarks/codecs.py $(ARGS)

clean:
	rm -rf .venv build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis hello.wav
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/bin/python:
	@test -n "$(PYTHON)" || { echo "Mynah needs Python 3.11 or newer, with venv, on the PATH"; exit 1; }
	$(PYTHON) -m venv .venv

.venv/installed: .venv/bin/python pyproject.toml
	@echo "installing into .venv; torch is large, so this takes some minutes the first time"
	@$(PIP) install -qq -e .
	@touch $@

.venv/installed-dev: .venv/installed
	@echo "installing what tests and checks need"
	@$(PIP) install -qq -e '.[dev]'
	@$(PIP) install -qq -e '.[eval]' > .venv/eval.log 2>&1 \
	|| echo "SIM and PESQ want a C compiler (see .venv/eval.log): their tests are skipped"
	@touch $@

.venv/installed-peers: .venv/installed-dev benchmarks/peers.txt
	@echo "installing what Mynah is compared with"
	@$(PIP) install -qq --no-deps -r benchmarks/peers.txt || echo "what is missing is left out of the comparison"
	@touch $@
