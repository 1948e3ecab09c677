# The dashboard in a container; docs/running.md says how to start it and how to set its password.
FROM python:3.13-slim

# Chromium draws figures and reports as PDF and PNG.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends chromium fonts-dejavu-core \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 1000 --create-home nextlabel \
    && mkdir /runs /images /cache \
    && chown nextlabel /runs /images /cache

WORKDIR /source
COPY requirements.txt ./
RUN pip install --no-cache-dir --requirement requirements.txt
COPY pyproject.toml README.md LICENSE app.py ./
COPY .streamlit ./.streamlit
COPY core ./core
COPY data ./data
COPY pages ./pages
RUN pip install --no-cache-dir --no-deps .

WORKDIR /runs
USER 1000
ENV NEXTLABEL_HOME=/runs NEXTLABEL_DATA=/cache NEXTLABEL_ROOTS=/images
VOLUME ["/runs", "/cache"]
EXPOSE 8501
HEALTHCHECK --start-period=60s CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8501/_stcore/health')"]
# Inside of a container this is the container alone; which addresses of the host reach it, `docker run --publish` says.
CMD ["nextlabel", "app", "--address", "0.0.0.0"]
