.DEFAULT_GOAL := help
SHELL := /bin/sh
BIN := .venv/bin
# The tests that compare with golden files.
GOLDEN_TESTS := tests/golden/test_grpc.py tests/golden/test_problems.py services/order/tests/integration/test_events.py services/user/tests/integration/test_events.py

.PHONY: help bootstrap setup run test acceptance test-unit test-delivery programs lint format contracts audit secrets sidecars images chart golden generate lock bench clean
.PHONY: sbom changelog wheels tag publish sign verify publish-chart deploy smoke rollback promote release

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 18

bootstrap: ## make or refresh .venv; everything else does so by itself
	@python3 tools/bootstrap.py

setup: bootstrap ## bootstrap, and have every commit looked at before it is made (.pre-commit-config.yaml)
	@$(BIN)/prek install --quiet --hook-type pre-commit --hook-type commit-msg

run: ## start the whole platform with demo data, print its URLs, follow its logs until Ctrl-C
	@./backend up $(ARGS)

test: bootstrap ## run every test against the real PostgreSQL, Valkey and Envoy; some: T="tests/e2e/test_auth.py -k refresh"; COVERAGE=1 measures
	@$(BIN)/python -m pytest $(if $(T),$(T),-n 2) $(if $(COVERAGE),--coverage)

test-unit: bootstrap ## run the services' unit tests, which start no process
	@$(BIN)/python -m pytest -n 0 $(wildcard services/*/tests/unit)

acceptance: bootstrap ## run tests/acceptance, what the platform does in sentences, and write it as a page
	@$(BIN)/python tools/acceptance.py

test-delivery: bootstrap ## images and Compose on a Docker engine of its own, as root; the Helm chart by Kubernetes' schemas and checkov
	@$(BIN)/python tools/delivery.py >/dev/null
	@DELIVERY=1 $(BIN)/python -m pytest -n 0 $(or $(T),tests/delivery)

programs: ## install the browser and the Prometheus that some tests need (Debian, Ubuntu)
	@.ci/programs

lint: bootstrap ## linters, strict types, import contracts, contract checks, generated code is current
	@$(BIN)/python tools/lint.py

format: bootstrap ## rewrite the code in the house format
	@$(BIN)/ruff check --fix --quiet . && $(BIN)/ruff format --quiet .

contracts: bootstrap ## what breaks clients since BASE=origin/main, which a commit has to say
	@$(BIN)/python tools/contract_gate.py

audit: bootstrap ## known vulnerabilities of everything that is locked; needs an index with advisories
	@$(BIN)/python tools/audit.py

secrets: bootstrap ## no commit has ever added a secret
	@$(BIN)/python tools/lint_secrets.py --history

sidecars: bootstrap ## the services without pyvoy, an Envoy beside each: started and called
	@$(BIN)/python tools/bench/sidecars.py

images: bootstrap ## build the images of this commit, by Docker; BASE=IMAGE is what they begin with
	@$(BIN)/python tools/images.py

chart: bootstrap ## render the Helm chart anew for the tests, and show what has changed in it
	@$(BIN)/python tools/golden_chart.py

sbom: bootstrap ## dist/sbom: what is in each image, as CycloneDX
	@$(BIN)/python tools/release.py sbom

changelog: bootstrap ## dist/changelog.md: what has changed since the last release, of the messages of commits
	@$(BIN)/python tools/release.py changelog

wheels: bootstrap ## dist/wheels: our distributions
	@$(BIN)/python tools/release.py wheels

smoke: bootstrap ## from a login to an order, at URL=https://…
	@$(BIN)/python tools/smoke.py

rollback: bootstrap ## a Helm release of the pipeline's back to the one before (docs/pipeline.md)
	@$(BIN)/python tools/publish.py rollback

publish sign verify deploy promote: bootstrap
	@$(BIN)/python tools/publish.py $@

publish-chart: bootstrap
	@$(BIN)/python tools/publish.py chart

tag release: bootstrap
	@$(BIN)/python tools/release.py $@

golden: bootstrap ## write the golden files (tests/golden) anew, and show what has changed in them; the chart's: make chart
	@GOLDEN=write $(BIN)/python -m pytest -n 0 -q -s $(or $(T),$(GOLDEN_TESTS))

generate: bootstrap ## regenerate everything that follows from the contracts and the SQL
	@$(BIN)/python tools/generate.py
	@$(BIN)/python tools/metrics_page.py

lock: bootstrap ## resolve requirements.in, bootstrap.in and delivery.in again into the hashed locks, of what is a week old
	@for f in bootstrap requirements delivery; do $(BIN)/uv pip compile --upgrade --exclude-newer '7 days' --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --quiet $$f.in -o $$f.lock; done

bench: bootstrap ## measure the platform beside pgbench and write docs/performance.md
	@$(BIN)/python tools/bench/run.py

clean: ## stop the platform, remove its data, the environment and all caches
	@if [ -x $(BIN)/backend ]; then $(BIN)/backend reset --yes; fi
	@rm -rf .venv .backend .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .lint_cache .venv-delivery dist
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
