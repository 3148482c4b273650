#!/usr/bin/env bash
# Files that no compiler reads: shell and Python scripts parse, YAML loads.
set -euo pipefail
cd "$(dirname "$0")/.."
for script in .ci/run $(git ls-files '*.sh'); do bash -n "$script"; done
python=${HOKUSAI_CACHE:-$HOME/.cache/hokusai}/python/bin/python
if [ -x "$python" ]; then
  git ls-files -z '*.py' | xargs -0 "$python" -c '
import ast, sys
for path in sys.argv[1:]:
    ast.parse(open(path, encoding="utf-8").read(), path)'
  git ls-files -z '*.yaml' '*.yml' | xargs -0 "$python" -c '
import sys, yaml
for path in sys.argv[1:]:
    with open(path, encoding="utf-8") as f:
        list(yaml.safe_load_all(f))'
else
  echo "skipped: Python and YAML files: no Python environment"
fi
