// Shows the document of this server; /docs?dialect=wps shows one dialect of it. Nothing else is asked for: without
// validatorUrl the renderer would send the document's address to a public validator.
SwaggerUIBundle({
  url: `openapi.json${window.location.search}`,
  dom_id: "#document",
  deepLinking: true,
  docExpansion: "list",
  filter: true,
  validatorUrl: null,
});
