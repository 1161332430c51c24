# glm-run alone, for running a folder that glm-export wrote: no torch, no compiler, no tests.
# We had no Docker engine, so this file was never built. tests/test_release.py runs its npm and pip
# commands in a new folder, which then takes 179 MB (du). That leaves 121 of 300 MB for
# python:3.11-slim, whose size we could not measure.
#
#   docker build -t glm-run .
#   docker run --rm -it -v ./artifacts/glm4-int4:/model:ro glm-run chat /model
#   docker run --rm -p 127.0.0.1:8080:8080 -v ./artifacts/glm4-int4:/model:ro glm-run \
#     serve glm4-int4=/model --host 0.0.0.0
FROM node:22-slim AS page
WORKDIR /source
COPY runtime runtime
RUN cd runtime/web && npm ci --no-audit --no-fund && npm run build:server

FROM python:3.11-slim AS build
WORKDIR /source
COPY . .
COPY --from=page /source/runtime/glm_server/page_files runtime/glm_server/page_files
RUN python -m venv /opt/glm && \
    /opt/glm/bin/pip install --no-cache-dir --no-compile -c constraints.txt '.[onnxruntime,serve]' && \
    /opt/glm/bin/pip uninstall --yes pip setuptools

FROM python:3.11-slim
COPY --from=build /opt/glm /opt/glm
RUN useradd --create-home glm
USER glm
WORKDIR /home/glm
ENV PATH=/opt/glm/bin:$PATH PYTHONUNBUFFERED=1
ENTRYPOINT ["glm-run"]
CMD ["--help"]
