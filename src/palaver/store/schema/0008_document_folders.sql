-- A document is known by the folder it came from and its path below that: two folders may each have a README.md.
-- A file given by itself came from the folder it lies in; ``root`` is empty for those that were added before this.

UPDATE document SET root = '' WHERE octet_length(root) > 1000;  -- a longer one does not fit into the key

ALTER TABLE document DROP CONSTRAINT document_app_knowledge_source_key;
ALTER TABLE document ADD CONSTRAINT document_app_knowledge_root_source_key UNIQUE (app, knowledge, root, source);
