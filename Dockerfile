# The four images of the project, from one file: --target operator | node | server | gateway.
#
# Layers, bottom up, so that nodes store and pull shared parts once and an edit of our source rebuilds only the last one:
#   BASE                    python3 (and, at build time only, its venv module); hack/images/base makes one from Debian
#   /opt/venv, base         what all of them need
#   /opt/venv, shared       what node agent and server both need: numpy
#   /opt/venv, per target   what only one of them needs, and nothing that is below already
#   /usr/sbin/haproxy       in the gateway: the base distribution's own, with the libraries that the base has not
#   /app                    our own source
# All bytecode is compiled here and never checked against its source: processes start fast on a read-only root.
# No shell is needed at run time. Nothing runs as root but the node agent, which mounts: its DaemonSet says so, and init
# containers run the same image as nobody. hack/images/build wraps this with caching.
ARG BASE=docker.io/library/python:3.12-slim

# What to install, by part. Its output changes only when the requirements do, not with every edit of pyproject.toml.
FROM ${BASE} AS requirements
COPY pyproject.toml /src/
RUN ["python3", "-c", "import pathlib, tomllib; \
project = tomllib.loads(pathlib.Path('/src/pyproject.toml').read_text())['project']; \
parts = {'base': project['dependencies'], **project['optional-dependencies']}; \
parts['shared'] = [one for one in parts['node'] if one in parts['server']]; \
out = pathlib.Path('/requirements'); out.mkdir(); \
[(out / f'{part}.txt').write_text('\\n'.join(parts[part]) + '\\n') for part in ('base', 'shared', 'operator', 'node', 'server')]"]

FROM ${BASE} AS base-packages
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
RUN python3 -m venv /build && python3 -m venv --without-pip /opt/venv && rm -f /opt/venv/bin/[Aa]ctivate*
COPY constraints.txt hack/images/slim /src/
COPY --from=requirements /requirements/base.txt /src/
RUN /build/bin/pip --python /opt/venv/bin/python3 install --no-compile -c /src/constraints.txt -r /src/base.txt \
 && python3 /src/slim /opt/venv

# pip's --prefix leaves out what /opt/venv already has: each of these holds only what its target adds.
FROM base-packages AS operator-packages
COPY --from=requirements /requirements/operator.txt /src/
RUN /build/bin/pip --python /opt/venv/bin/python3 install --no-compile --prefix /extra -c /src/constraints.txt -r /src/operator.txt \
 && python3 /src/slim /extra

FROM base-packages AS shared-packages
COPY --from=requirements /requirements/shared.txt /src/
RUN /build/bin/pip --python /opt/venv/bin/python3 install --no-compile --prefix /shared -c /src/constraints.txt -r /src/shared.txt \
 && python3 /src/slim /shared && cp -a /shared/. /opt/venv/

FROM shared-packages AS node-packages
COPY --from=requirements /requirements/node.txt /src/
RUN /build/bin/pip --python /opt/venv/bin/python3 install --no-compile --prefix /extra -c /src/constraints.txt -r /src/node.txt \
 && python3 /src/slim /extra

FROM shared-packages AS server-packages
COPY --from=requirements /requirements/server.txt /src/
RUN /build/bin/pip --python /opt/venv/bin/python3 install --no-compile --prefix /extra -c /src/constraints.txt -r /src/server.txt \
 && python3 /src/slim /extra

# /packages holds Debian's packages where the base has no apt to fetch them; hack/images/build lends it. Nothing of them is
# run, and of what they hold only the program and its libraries are taken; adduser and what it needs is for a script of theirs.
FROM ${BASE} AS haproxy
RUN set -e; mkdir -p /tmp/packages/partial /all /out/usr/sbin /out/usr/lib; \
    if [ -d /packages ]; then cp /packages/*.deb /tmp/packages/; \
    else apt-get update && apt-get install --yes --no-install-recommends --download-only -o Dir::Cache::archives=/tmp/packages haproxy; fi; \
    rm -f /tmp/packages/adduser_* /tmp/packages/passwd_* /tmp/packages/libse*; \
    for package in /tmp/packages/*.deb; do dpkg-deb --extract "$package" /all; done; \
    cp -a /all/usr/sbin/haproxy /out/usr/sbin/; \
    for text in /all/usr/share/doc/*/copyright; do mkdir -p "/out${text#/all}"; rmdir "/out${text#/all}"; cp "$text" "/out${text#/all}"; done; \
    for folder in /all/usr/lib/*-linux-gnu /all/lib/*-linux-gnu; do \
      [ ! -d "$folder" ] || { mkdir -p "/out/usr/lib/${folder##*/}"; cp -a "$folder"/*.so* "/out/usr/lib/${folder##*/}/"; }; done

FROM ${BASE} AS edgemodel-source
COPY operator/edgemodel /out/app/edgemodel
COPY LICENSE /out/app/
RUN python3 -m compileall -q --invalidation-mode unchecked-hash -s /out -p / /out/app \
 && mkdir /out/app/bin \
 && printf '#!/opt/venv/bin/python3\nfrom edgemodel.cli.main import main\n\nraise SystemExit(main())\n' > /out/app/bin/edgemodel \
 && chmod 0755 /out/app/bin/edgemodel

FROM ${BASE} AS server-source
COPY inference_server /out/app/inference_server
COPY LICENSE /out/app/
RUN python3 -m compileall -q --invalidation-mode unchecked-hash -s /out -p / /out/app

FROM ${BASE} AS runtime
# USER: kopf asks for the user's name, and whatever uid a cluster chooses has no entry in /etc/passwd.
ENV USER=edgemodel
ENV PATH=/app/bin:/opt/venv/bin:/usr/local/bin:/usr/bin:/bin PYTHONPATH=/app PYTHONUNBUFFERED=1 HOME=/tmp
WORKDIR /
LABEL org.opencontainers.image.licenses=Apache-2.0
COPY --from=base-packages /opt/venv /opt/venv

# The import in each target fails the build, and not the first pod, when a shared library or a slimmed module is missing.
FROM runtime AS operator
COPY --from=operator-packages /extra /opt/venv
COPY --from=edgemodel-source /out/app /app
RUN ["python3", "-B", "-c", "import edgemodel.cli.main, edgemodel.controller.app"]
LABEL org.opencontainers.image.title=edgemodel-operator
USER 65532:65532
ENTRYPOINT ["edgemodel", "operator"]

FROM runtime AS shared
COPY --from=shared-packages /shared /opt/venv

FROM shared AS node
COPY --from=node-packages /extra /opt/venv
COPY --from=edgemodel-source /out/app /app
RUN ["python3", "-B", "-c", "import zoneinfo, edgemodel.cli.main, edgemodel.node.fetch, edgemodel.node.agent, \
edgemodel.artifact.delta.codec, backports.zstd, hdiffpatch; zoneinfo.ZoneInfo('Europe/Vienna')"]
LABEL org.opencontainers.image.title=edgemodel-node
USER 65532:65532
ENTRYPOINT ["edgemodel"]

FROM shared AS server
COPY --from=server-packages /extra /opt/venv
COPY --from=server-source /out/app /app
RUN ["python3", "-B", "-c", "import inference_server.app, inference_server.engine.model, uvloop"]
LABEL org.opencontainers.image.title=edgemodel-server
USER 65532:65532
ENTRYPOINT ["python3", "-m", "inference_server"]

FROM runtime AS gateway
COPY --from=haproxy /out /
COPY --from=edgemodel-source /out/app /app
ENV PATH=/app/bin:/opt/venv/bin:/usr/sbin:/usr/local/bin:/usr/bin:/bin
RUN ["haproxy", "-vv"]
RUN ["python3", "-B", "-c", "import edgemodel.cli.main, edgemodel.gateway.app"]
RUN ["python3", "-B", "-I", "-S", "-c", "import sys; sys.path.insert(0, '/app'); import edgemodel.gateway.supervisor, edgemodel.gateway.last_words, edgemodel.gateway.keeper"]
LABEL org.opencontainers.image.title=edgemodel-gateway
USER 65532:65532
ENTRYPOINT ["edgemodel", "gateway"]
